"""The page's part for classifiers: labels one by one, mix-ups, the map, doubtful rows.

`TextDetails` go in, words and pictures come out; shares are shown as evaluation measured them.
"""

import base64
from dataclasses import dataclass

from markupsafe import Markup

from luthier.evaluation.details import Average, ClassDetails, LabelDetail
from luthier.evaluation.separation import Separation
from luthier.evaluation.suspects import Suspect
from luthier.evaluation.values import Estimate
from luthier.report.numbers import Unit, WithInterval, count, metric_value, with_interval
from luthier.report.pictures import calibration_picture, map_picture
from luthier.report.values import TextDetails

MAX_SUSPECTS = 30
"""Doubtful rows on the page; report.json lists all."""
MAX_MIX_UPS = 12
MAX_CELLS = 24
"""Labels up to which the whole matrix is shown; beyond, the most frequent mix-ups."""
SHADES = 9
COLUMNS: dict[str, tuple[str, Unit]] = {
    "Precision": ("precision", "share"),
    "Recall": ("recall", "share"),
    "F1": ("f1", "share"),
    "AUROC": ("auroc", "plain"),
    "Average precision": ("average_precision", "plain"),
}
"""Heading -> field and unit of what is shown of a label."""


@dataclass(frozen=True, slots=True)
class LabelLine:
    """One label, or an average over them: of the tuned model, and its F1 before."""

    label: str
    support: str
    figures: tuple[WithInterval, ...]
    """Those of `COLUMNS`."""
    f1_before: str
    is_average: bool = False


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
class Figure:
    """A figure of separation before and after."""

    name: str
    before: WithInterval
    after: WithInterval


@dataclass(frozen=True, slots=True)
class ClassPart:
    """Everything the page says of a classifier besides its scores."""

    system: str
    baseline: str
    columns: tuple[str, ...]
    labels: tuple[LabelLine, ...]
    names: tuple[str, ...]
    matrix: tuple[tuple[str, tuple[MatrixCell, ...]], ...]
    mix_ups: tuple[MixUp, ...]
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
        columns=tuple(COLUMNS),
        labels=_labels(tuned, before),
        names=tuple(label.label for label in tuned.labels),
        matrix=_matrix(tuned),
        mix_ups=_mix_ups(tuned),
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


def _labels(tuned: ClassDetails, before: ClassDetails | None) -> tuple[LabelLine, ...]:
    """All labels, those with the lowest F1 first; after them the averages."""
    earlier: dict[str, Estimate] = {}
    if before:
        earlier = {label.label: label.f1 for label in before.labels}
        earlier |= {f"{average.name} average": average.f1 for average in before.averages}

    def line(name: str, support: str, found: LabelDetail | Average) -> LabelLine:
        figures = tuple(
            with_interval(getattr(found, field), unit) for field, unit in COLUMNS.values()
        )
        f1_before = metric_value(earlier[name].value if name in earlier else None, "share")
        return LabelLine(name, support, figures, f1_before, isinstance(found, Average))

    ordered = sorted(tuned.labels, key=lambda each: (each.support == 0, each.f1.value or 0.0))
    return (
        *(line(each.label, count(each.support), each) for each in ordered),
        *(line(f"{each.name} average", "", each) for each in tuned.averages),
    )


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


def _figures(before: Separation, after: Separation) -> tuple[Figure, ...]:
    named: tuple[tuple[str, Unit, Estimate, Estimate], ...] = (
        ("silhouette", "plain", before.silhouette, after.silhouette),
        ("nearest neighbours of the own class", "share", before.neighbours, after.neighbours),
        ("distance between classes over within", "plain", before.ratio, after.ratio),
    )
    return tuple(
        Figure(name, with_interval(first, unit), with_interval(second, unit))
        for name, unit, first, second in named
    )
