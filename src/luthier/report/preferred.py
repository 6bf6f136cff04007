"""What a judge preferred, as lines of a table."""

from collections.abc import Sequence
from dataclasses import dataclass

from luthier.evaluation.values import LEAST_CONSISTENCY, Duel
from luthier.report.numbers import WithInterval, count, metric_value, p_value, with_interval


@dataclass(frozen=True, slots=True)
class DuelLine:
    """One duel in words."""

    rival: str
    won: str
    lost: str
    tied: str
    unjudged: str
    rate: WithInterval
    decided: WithInterval
    length_controlled: str
    test: str
    p_value: str
    consistency: WithInterval
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
            rate=with_interval(duel.preferred.rate, "share"),
            decided=with_interval(duel.preferred.decided, "share"),
            length_controlled=metric_value(duel.preferred.length_controlled, "share"),
            test=duel.preferred.test,
            p_value=p_value(duel.preferred.p_value),
            consistency=with_interval(duel.consistency, "share"),
            is_trusted=duel.is_trusted,
        )
        for duel in duels
    )


def least_consistency() -> str:
    """Below which nothing is concluded."""
    return metric_value(LEAST_CONSISTENCY, "share")
