"""The page's part for slices: the tuned model and its baseline on parts of the rows."""

from dataclasses import dataclass

from luthier.evaluation.slices import Slice
from luthier.report.numbers import count, metric_interval, metric_value
from luthier.report.values import TextDetails


@dataclass(frozen=True, slots=True)
class SliceLine:
    """One slice after and before."""

    column: str
    value: str
    num_rows: str
    after: str
    after_interval: str
    before: str
    before_interval: str


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
    earlier: dict[tuple[str, str], Slice] = {}
    if others:
        earlier = {(each.column, each.value): each for each in others[0].parts}

    def shown(each: Slice | None) -> tuple[str, str]:
        if each is None:
            return metric_value(None, unit), ""
        found = each.estimate
        return metric_value(found.value, unit), metric_interval(found.low, found.high, unit)

    lines = tuple(
        SliceLine(
            each.column,
            each.value,
            count(each.num_rows),
            *shown(each),
            *shown(earlier.get((each.column, each.value))),
        )
        for each in tuned.parts
    )
    return SlicePart(tuned.metric.title, tuned.system, others[0].system if others else "", lines)
