"""What a judge preferred, as lines of a table."""

from collections.abc import Sequence
from dataclasses import dataclass

from luthier.evaluation.values import LEAST_CONSISTENCY, Duel, Estimate
from luthier.report.numbers import MISSING, count, metric_interval, metric_value, p_value


@dataclass(frozen=True, slots=True)
class Shown:
    """An estimate in words."""

    value: str
    interval: str


@dataclass(frozen=True, slots=True)
class DuelLine:
    """One duel in words."""

    rival: str
    won: str
    lost: str
    tied: str
    unjudged: str
    rate: Shown
    decided: Shown
    length_controlled: str
    test: str
    p_value: str
    consistency: Shown
    is_trusted: bool


def duel_lines(duels: Sequence[Duel]) -> tuple[DuelLine, ...]:
    """A line for each rival."""
    return tuple(
        DuelLine(
            rival=duel.rival,
            won=count(duel.preferred.won),
            lost=count(duel.preferred.lost),
            tied=count(duel.preferred.tied),
            unjudged=count(duel.preferred.unjudged),
            rate=_shown(duel.preferred.rate),
            decided=_shown(duel.preferred.decided),
            length_controlled=metric_value(duel.preferred.length_controlled, "share"),
            test=duel.preferred.test,
            p_value=p_value(duel.preferred.p_value),
            consistency=_shown(duel.consistency),
            is_trusted=duel.is_trusted,
        )
        for duel in duels
    )


def least_consistency() -> str:
    """Below which nothing is concluded."""
    return metric_value(LEAST_CONSISTENCY, "share")


def _shown(estimate: Estimate) -> Shown:
    if estimate.value is None:
        return Shown(MISSING, "")
    interval = metric_interval(estimate.low, estimate.high, "share")
    return Shown(metric_value(estimate.value, "share"), interval)
