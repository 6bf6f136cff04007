"""The page's part for classifiers: labels one by one, mix-ups, slices, the map, doubtful rows.

`TextDetails` go in, words and pictures come out; shares are shown as evaluation measured them.
"""

import base64
from dataclasses import dataclass

from markupsafe import Markup

from luthier.evaluation.details import ClassDetails, LabelDetail, SliceDetail
from luthier.evaluation.separation import Separation
from luthier.evaluation.suspects import Suspect
from luthier.evaluation.values import Estimate
from luthier.report.numbers import (
    MISSING,
    Unit,
    count,
    metric_interval,
    metric_value,
)
from luthier.report.pictures import calibration_picture, map_picture
from luthier.report.values import TextDetails

MAX_SUSPECTS = 30
"""Doubtful rows on the page; report.json lists all."""
MAX_MIX_UPS = 12
MAX_CELLS = 24
"""Labels up to which the whole matrix is shown; beyond, the most frequent mix-ups."""
SHADES = 9


@dataclass(frozen=True, slots=True)
class Share:
    """A share with its interval, in words."""

    value: str
    interval: str


@dataclass(frozen=True, slots=True)
class LabelLine:
    """One label: of the tuned model, and its F1 before."""

    label: str
    support: str
    precision: Share
    recall: Share
    f1: str
    f1_before: str
    auroc: str


@dataclass(frozen=True, slots=True)
class MixUp:
    """Rows of one label that were given another."""

    label: str
    given: str
    num_rows: str


@dataclass(frozen=True, slots=True)
class MatrixCell:
    """One cell of the matrix of mix-ups; `shade` 0 to 9 is its share of its row."""

    num_rows: str
    shade: int
    is_right: bool


@dataclass(frozen=True, slots=True)
class SliceLine:
    """One slice: the share of rows with all labels right, after and before."""

    column: str
    value: str
    num_rows: str
    share: Share
    before: str


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure of separation before and after."""

    name: str
    before: Share
    after: Share


@dataclass(frozen=True, slots=True)
class ClassPart:
    """Everything the page says of a classifier besides its scores."""

    system: str
    baseline: str
    labels: tuple[LabelLine, ...]
    averages: tuple[tuple[str, str, str, str], ...]
    """Name, precision, recall, F1."""
    names: tuple[str, ...]
    matrix: tuple[tuple[str, tuple[MatrixCell, ...]], ...]
    mix_ups: tuple[MixUp, ...]
    slices: tuple[SliceLine, ...]
    map_picture: Markup | None
    map_method: str
    unseen: tuple[str, ...]
    figures: tuple[Figure, ...]
    calibration_picture: Markup | None
    suspects: tuple[Suspect, ...]
    num_suspects: int


def class_part(details: TextDetails | None) -> ClassPart | None:
    """What the page shows; None for a run without labels."""
    if details is None or not details.classes:
        return None
    tuned = details.classes[0]
    before = details.classes[1] if len(details.classes) > 1 else None
    class_map = details.class_map
    sureness = calibration_picture(details.classes)
    return ClassPart(
        system=tuned.system,
        baseline=before.system if before else "",
        labels=_labels(tuned, before),
        averages=_averages(tuned),
        names=tuple(label.label for label in tuned.labels),
        matrix=_matrix(tuned),
        mix_ups=_mix_ups(tuned),
        slices=_slices(tuned, before),
        map_picture=_embedded(map_picture(class_map)) if class_map else None,
        map_method=class_map.method if class_map else "",
        unseen=class_map.unseen if class_map else (),
        figures=_figures(class_map.separation_before, class_map.separation_after)
        if class_map
        else (),
        calibration_picture=_embedded(sureness) if sureness else None,
        suspects=details.suspects[:MAX_SUSPECTS],
        num_suspects=len(details.suspects),
    )


def _embedded(png: bytes) -> Markup:
    """A PNG as the address of an image; base64 holds nothing that a page could take for its own."""
    return Markup("data:image/png;base64," + base64.b64encode(png).decode())  # noqa: S704


def _share(value: float | None, limits: tuple[float | None, float | None]) -> Share:
    return Share(metric_value(value, "share"), metric_interval(*limits, "share"))


def _labels(tuned: ClassDetails, before: ClassDetails | None) -> tuple[LabelLine, ...]:
    """All labels, those with the lowest F1 first."""
    earlier = {label.label: label.f1 for label in before.labels} if before else {}

    def line(label: LabelDetail) -> LabelLine:
        return LabelLine(
            label.label,
            count(label.support),
            _share(label.precision, label.precision_interval),
            _share(label.recall, label.recall_interval),
            metric_value(label.f1, "share"),
            metric_value(earlier.get(label.label), "share"),
            metric_value(label.auroc, "plain"),
        )

    ordered = sorted(tuned.labels, key=lambda label: (label.support == 0, label.f1))
    return tuple(line(label) for label in ordered)


def _averages(tuned: ClassDetails) -> tuple[tuple[str, str, str, str], ...]:
    found = []
    for name, values in (("macro", tuned.averages.macro), ("micro", tuned.averages.micro)):
        precision, recall, f1 = (metric_value(value, "share") for value in values)
        found.append((f"{name} average", precision, recall, f1))
    return tuple(found)


def _matrix(tuned: ClassDetails) -> tuple[tuple[str, tuple[MatrixCell, ...]], ...]:
    if not tuned.confusion or len(tuned.confusion) > MAX_CELLS:
        return ()
    rows = []
    for i, (label, row) in enumerate(zip(tuned.labels, tuned.confusion, strict=True)):
        total = max(1, sum(row))
        cells = tuple(
            MatrixCell(count(n) if n else "", round(SHADES * n / total), i == j)
            for j, n in enumerate(row)
        )
        rows.append((label.label, cells))
    return tuple(rows)


def _mix_ups(tuned: ClassDetails) -> tuple[MixUp, ...]:
    found = [
        (n, tuned.labels[i].label, tuned.labels[j].label)
        for i, row in enumerate(tuned.confusion)
        for j, n in enumerate(row)
        if i != j and n
    ]
    found.sort(key=lambda each: -each[0])
    return tuple(MixUp(label, given, count(n)) for n, label, given in found[:MAX_MIX_UPS])


def _slices(tuned: ClassDetails, before: ClassDetails | None) -> tuple[SliceLine, ...]:
    earlier: dict[tuple[str, str], SliceDetail] = {}
    if before:
        earlier = {(each.column, each.value): each for each in before.slices}
    return tuple(
        SliceLine(
            each.column,
            each.value,
            count(each.n),
            _share(each.share, (each.low, each.high)),
            metric_value(earlier[each.column, each.value].share, "share")
            if (each.column, each.value) in earlier
            else MISSING,
        )
        for each in tuned.slices
    )


def _figures(before: Separation, after: Separation) -> tuple[Figure, ...]:
    named: tuple[tuple[str, Unit, Estimate, Estimate], ...] = (
        ("silhouette", "plain", before.silhouette, after.silhouette),
        ("nearest neighbours of the own class", "share", before.neighbours, after.neighbours),
        ("distance between classes over within", "plain", before.ratio, after.ratio),
    )
    return tuple(
        Figure(name, _estimated(first, unit), _estimated(second, unit))
        for name, unit, first, second in named
    )


def _estimated(estimate: Estimate, unit: Unit) -> Share:
    return Share(
        metric_value(estimate.value, unit), metric_interval(estimate.low, estimate.high, unit)
    )
