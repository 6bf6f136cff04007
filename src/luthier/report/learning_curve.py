"""The page of a learning curve: scores by training rows, and what twice as many would bring."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from luthier.evaluation.doubling import Doubled
from luthier.evaluation.values import Estimate, Metric
from luthier.report.numbers import count, metric_interval, metric_value
from luthier.report.page import render_template
from luthier.report.svg import Scale, element, figure, line, polyline, text, tick_decimals, ticks

WIDTH, BOTTOM = 920, 300
LEFT, RIGHT = 70, 850
WHISKER = 6
"""Half the width of an interval's ends."""


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """A run on some of the training rows, and its score."""

    num_rows: int
    estimate: Estimate
    run_id: str


def render_curve_page(
    title: str, metric: Metric, points: Sequence[CurvePoint], doubled: Doubled | None, words: str
) -> str:
    """The whole page as text; it needs nothing but a browser."""
    lines = [
        (count(p.num_rows), metric_value(p.estimate.value, metric.unit),
         metric_interval(p.estimate.low, p.estimate.high, metric.unit), p.run_id)
        for p in points
    ]  # fmt: skip
    if doubled is not None:
        expected = metric_interval(doubled.low, doubled.high, metric.unit)
        value = metric_value(doubled.value, metric.unit)
        lines.append((count(2 * points[-1].num_rows), value, expected, "expected"))
    chart = _chart(metric, points, doubled)
    return render_template("curve_page.html", {
        "title": title, "metric": metric.title, "words": words, "chart": chart, "lines": lines,
    })  # fmt: skip


def _chart(metric: Metric, points: Sequence[CurvePoint], doubled: Doubled | None) -> Markup:
    known = [p for p in points if p.estimate.value is not None]
    scale = 100.0 if metric.unit == "share" else 1.0
    rows = [
        (p.num_rows, p.estimate.value or 0.0, p.estimate.low, p.estimate.high, "validation")
        for p in known
    ]
    if doubled is not None:
        far = 2 * points[-1].num_rows
        rows.append((far, doubled.value, doubled.low, doubled.high, "expected"))
    values = [scale * v for row in rows for v in row[1:4] if v is not None] or [0.0, 1.0]
    marks = ticks(min(values), max(values), 5)
    step = marks[1] - marks[0] if len(marks) > 1 else 1.0
    # Rows are doubled from point to point: their logarithm is what is laid out.
    x = Scale(0, max(1, len(rows) - 1), LEFT + 40, RIGHT)
    y = Scale(min(values) - step / 2, max(values) + step / 2, BOTTOM, 24)
    decimals = tick_decimals(marks)
    parts = [line(LEFT, BOTTOM, RIGHT + 40, BOTTOM, "axis"), text(0, 12, metric.title, "tick")]
    for mark in marks:
        parts += [line(LEFT, y(mark), RIGHT + 40, y(mark), "grid"),
                  text(LEFT - 8, y(mark) + 4, f"{mark:.{decimals}f}", "tick", "end")]  # fmt: skip
    parts.append(polyline(((x(i), y(scale * row[1])) for i, row in enumerate(rows[: len(known)])),
                          "loss-smooth"))  # fmt: skip
    if doubled is not None:
        ends = [(x(i), y(scale * rows[i][1])) for i in (len(known) - 1, len(known))]
        parts.append(polyline(ends, "loss-validation"))
    for i, (number, value, low, high, kind) in enumerate(rows):
        parts += _point(x(i), y(scale * value), kind)
        if low is not None and high is not None:
            parts += _whisker(x(i), y(scale * low), y(scale * high))
        parts.append(text(x(i), BOTTOM + 18, count(number), "tick", "middle"))
    parts.append(text(RIGHT + 40, BOTTOM + 34, "training rows", "tick", "end"))
    said = ", ".join(f"{count(p.num_rows)} rows: {metric_value(p.estimate.value, metric.unit)}"
                     for p in known)  # fmt: skip
    return figure("curve", (WIDTH, BOTTOM + 40), "Score by training rows", f"{said}.", parts)


def _point(x: float, y: float, kind: str) -> list[Markup]:
    if kind == "expected":
        return [element("circle", cx=x, cy=y, r=6, class_="best-ring")]
    return [element("circle", cx=x, cy=y, r=5, class_="series-1 dot-filled")]


def _whisker(x: float, low: float, high: float) -> list[Markup]:
    ends = (line(x - WHISKER, at, x + WHISKER, at, "whisker-line") for at in (low, high))
    return [line(x, low, x, high, "whisker-line"), *ends]
