"""The page's part for general ability: is it kept, and what has moved."""

from dataclasses import dataclass

from markupsafe import Markup

from luthier.evaluation.values import General
from luthier.report.bars import ability_chart
from luthier.report.numbers import count, loss, metric_value, perplexity

COLOURS = {"kept": "better", "lost": "worse", "not shown": "unclear"}


@dataclass(frozen=True, slots=True)
class AbilityLine:
    """One subject before and after."""

    subject: str
    n: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class AbilityPart:
    """What the page shows of general ability."""

    words: str
    chart: Markup
    picked: tuple[AbilityLine, ...]
    perplexity: tuple[AbilityLine, ...]
    divergence: str


def ability_part(general: General | None) -> AbilityPart | None:
    """None where it was not looked at."""
    if general is None:
        return None
    return AbilityPart(
        general.words,
        ability_chart(general, COLOURS[general.outcome]),
        tuple(
            AbilityLine(
                each.subject, count(each.n), metric_value(each.before, "share"),
                metric_value(each.after, "share"),
            )
            for each in general.picked
        ),
        tuple(
            AbilityLine(
                each.subject, count(each.n), perplexity(each.before), perplexity(each.after)
            )
            for each in general.perplexity
        ),
        loss(general.divergence) if general.divergence is not None else "",
    )  # fmt: skip
