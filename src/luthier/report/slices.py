"""The page's part for slices: the tuned model and its baseline on parts of the rows."""

from dataclasses import dataclass

from luthier.evaluation.values import Estimate
from luthier.report.numbers import WithInterval, count, with_interval
from luthier.report.values import TextDetails


@dataclass(frozen=True, slots=True)
class SliceLine:
    """One slice after and before."""

    column: str
    value: str
    num_rows: str
    after: WithInterval
    before: WithInterval


@dataclass(frozen=True, slots=True)
class SlicePart:
    """What the page shows of slices."""

    metric: str
    system: str
    baseline: str
    lines: tuple[SliceLine, ...]


def slice_part(details: TextDetails | None) -> SlicePart | None:
    """None where no column parts the rows."""
    if details is None or not details.slices or not details.slices[0].parts:
        return None
    tuned, *others = details.slices
    unit = tuned.metric.unit
    earlier: dict[tuple[str, str], Estimate] = {}
    if others:
        earlier = {(each.column, each.value): each.estimate for each in others[0].parts}
    lines = tuple(
        SliceLine(
            each.column,
            each.value,
            count(each.num_rows),
            with_interval(each.estimate, unit),
            with_interval(earlier.get((each.column, each.value)), unit),
        )
        for each in tuned.parts
    )
    return SlicePart(tuned.metric.title, tuned.system, others[0].system if others else "", lines)
