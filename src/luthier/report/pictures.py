"""Pictures that are drawn as points: the map of classes before and after tuning, how sure is how
right, and how rows were learnt.

Values go in, PNG bytes come out; nothing is computed here. Both panels of a map have the same
method and seed; colours follow the order of labels, and with many labels their names stand above
their points instead of in a legend, those of the most points first and none over another.
"""

import io
from collections.abc import Sequence
from statistics import median
from typing import TYPE_CHECKING

from luthier.evaluation.details import ClassDetails
from luthier.evaluation.separation import ClassMap, Point

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.transforms import Bbox

DOTS_PER_INCH = 110
MAX_LEGEND = 20
COLOURS = (
    "#1f5f99", "#d9822b", "#2f8f5b", "#b5372f", "#7a5195", "#8a6312", "#c2639e", "#4f6d7a",
    "#9aa926", "#1fa3a3", "#6c8ebf", "#e3a857", "#78b28b", "#d98880", "#a98fc0", "#bfa25a",
    "#e0a3c7", "#93a8b1", "#c3ce6a", "#7cc9c9",
)  # fmt: skip
LEARNING_COLOURS = {"easy": "#2f8f5b", "ambiguous": "#d9822b", "hard": "#b5372f"}
INK, QUIET, HAIRLINE = "#1c2024", "#626b74", "#d6dbe0"


def map_picture(class_map: ClassMap) -> bytes:
    """Held-out rows in the plane, before and after, as a PNG."""
    from matplotlib.figure import Figure

    labels = sorted({point.label for point in class_map.before})
    figure = Figure(figsize=(9.4, 4.9 if len(labels) <= MAX_LEGEND else 6), layout="constrained")
    panels = figure.subplots(1, 2)
    unseen = set(class_map.unseen)
    for panel, title, points in zip(
        panels, ("before", "after"), (class_map.before, class_map.after), strict=True
    ):
        _draw(panel, points, labels, unseen)
        panel.set_title(title, loc="left", color=INK, fontsize=11, fontweight="bold")
    if len(labels) <= MAX_LEGEND:
        handles, names = panels[0].get_legend_handles_labels()
        figure.legend(
            handles, names, loc="outside lower center", ncols=min(5, len(names)), frameon=False,
            fontsize=9, labelcolor=INK,
        )  # fmt: skip
    else:
        for panel, points in zip(panels, (class_map.before, class_map.after), strict=True):
            _name(panel, points)
        figure.draw_without_rendering()
        for panel in panels:
            _part_names(panel)
    return _png(figure)


def _name(panel: "Axes", points: Sequence[Point]) -> None:
    """Write each label over its points."""
    places: dict[str, list[Point]] = {}
    for point in points:
        places.setdefault(point.label, []).append(point)
    for label, own in sorted(places.items(), key=lambda each: -len(each[1])):
        middle = median(p.x for p in own), median(p.y for p in own)
        panel.annotate(
            label, middle, xytext=(0, 4), textcoords="offset points", fontsize=6.5, color=INK,
            ha="center", va="bottom",
        )  # fmt: skip


def _part_names(panel: "Axes") -> None:
    """Take away names that would stand over one of more points, or beyond the frame."""
    kept: list[Bbox] = []
    for text in list(panel.texts):
        box = text.get_window_extent()
        if any(box.overlaps(other) for other in kept) or not (
            panel.bbox.x0 <= box.x0 and box.x1 <= panel.bbox.x1
        ):
            text.remove()
        else:
            kept.append(box)


def _draw(panel: "Axes", points: Sequence[Point], labels: Sequence[str], unseen: set[str]) -> None:
    for number, label in enumerate(labels):
        own = [point for point in points if point.label == label]
        colour = COLOURS[number % len(COLOURS)]
        name = f"{label} (not in training)" if label in unseen else label
        panel.scatter(
            [p.x for p in own], [p.y for p in own], s=13, alpha=0.75, label=name, color=colour,
            marker="x" if label in unseen else "o", linewidths=0.9 if label in unseen else 0,
        )  # fmt: skip
    panel.set_xticks([])
    panel.set_yticks([])
    for side in panel.spines.values():
        side.set_color(HAIRLINE)


def calibration_picture(details: Sequence[ClassDetails]) -> bytes | None:
    """How often answers are right, against how sure they were, as a PNG; None without any."""
    from matplotlib.figure import Figure

    known = [each for each in details if each.calibration is not None]
    if not known:
        return None
    figure = Figure(figsize=(4.6, 4.8), layout="constrained")
    panel = figure.subplots()
    panel.plot([0, 1], [0, 1], color=QUIET, linewidth=1, linestyle=(0, (2, 4)))
    for number, each in enumerate(known):
        assert each.calibration is not None, "chosen so"
        bins = each.calibration.bins
        panel.plot(
            [b.confidence for b in bins], [b.accuracy for b in bins], marker="o", markersize=4,
            linewidth=1.6, color=COLOURS[number],
            label=f"{each.system}: off by {100 * each.calibration.error:.1f} points",
        )  # fmt: skip
    panel.set_xlabel("how sure (probability)", color=QUIET)
    panel.set_ylabel("how often right", color=QUIET)
    panel.set_xlim(0, 1.02)
    panel.set_ylim(0, 1.02)
    panel.tick_params(colors=QUIET, labelsize=9)
    figure.legend(loc="outside lower center", frameon=False, fontsize=9, labelcolor=INK)
    for side in panel.spines.values():
        side.set_color(HAIRLINE)
    return _png(figure)


def cartography_picture(points: Sequence[tuple[float, float, str]]) -> bytes:
    """Rows by variability and confidence, and how they were learnt, as a PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 5.6), layout="constrained")
    panel = figure.subplots()
    for name, colour in LEARNING_COLOURS.items():
        own = [point for point in points if point[2] == name]
        panel.scatter(
            [x for x, _, _ in own], [y for _, y, _ in own], s=12, alpha=0.5, linewidths=0,
            color=colour, label=f"{name}: {len(own):,}", rasterized=True,
        )  # fmt: skip
    panel.set_xlabel(
        "variability: deviation of the answer's probability over the passes", color=QUIET
    )
    panel.set_ylabel("confidence (its mean over the passes)", color=QUIET)
    panel.set_xlim(left=0)
    panel.set_ylim(0, 1.02)
    panel.tick_params(colors=QUIET, labelsize=9)
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=9, labelcolor=INK)
    for side in panel.spines.values():
        side.set_color(HAIRLINE)
    return _png(figure)


def _png(figure: "Figure") -> bytes:
    target = io.BytesIO()
    # Without a date or the version of what drew it, equal values are equal bytes.
    figure.savefig(target, format="png", dpi=DOTS_PER_INCH, metadata={"Software": None})
    return target.getvalue()
