"""Charts of shares and lengths: scores with intervals, the difference, outcomes, stages.

Values in, one `<svg>` out. Every chart says in its description, in words, what it shows, and bars
begin at zero. What is known to be uncertain is drawn as a whisker over the bar.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from luthier.evaluation.values import Comparison, Estimate, General, Metric
from luthier.report.numbers import (
    difference_interval,
    duration,
    metric_interval,
    metric_value,
    plain_number,
    signed_difference,
)
from luthier.report.pairing import Outcome
from luthier.report.svg import (
    Scale,
    element,
    figure,
    group,
    line,
    rectangle,
    shortened,
    text,
    tick_decimals,
    ticks,
)

WIDTH = 920
LABELS = 232
VALUES = 190
ROW = 44
THICKNESS = 18
MAX_LABEL = 27


@dataclass(frozen=True, slots=True)
class Bar:
    """One system's estimate of one metric."""

    label: str
    estimate: Estimate | None
    is_tuned: bool


@dataclass(frozen=True, slots=True)
class Segment:
    """A number of rows with one outcome."""

    outcome: Outcome
    title: str
    num_rows: int


def score_bars(metric: Metric, bars: Sequence[Bar]) -> Markup:
    """One bar a system from zero to its value, with its interval as a whisker."""
    scale = Scale(0, _ceiling(metric, bars), LABELS, WIDTH - VALUES)
    bottom = 8 + ROW * len(bars)
    words = "; ".join(f"{bar.label}: {_said(metric, bar.estimate)}" for bar in bars)
    drawn = [_score_bar(metric, bar, 8 + ROW * row, scale) for row, bar in enumerate(bars)]
    return figure(
        "scores",
        (WIDTH, bottom + 30),
        f"{metric.title} of every system",
        f"{words}.",
        [_value_axis(metric, scale, bottom), *drawn],
    )


@dataclass(frozen=True, slots=True)
class Gap:
    """A difference with its interval; the colour is that of a decision."""

    value: float
    low: float | None
    high: float | None
    decision: str
    band: tuple[float, float] | None = None
    """Differences that are shaded; limits may be infinite."""


def difference_chart(metric: Metric, comparison: Comparison, decision: str) -> Markup:
    """The difference with its interval, over the band of differences too small to be shown."""
    smallest = comparison.minimum_detectable
    band = (-smallest, smallest) if smallest else None
    gap = Gap(comparison.difference, comparison.low, comparison.high, decision, band)
    return _gap_chart("difference", metric, gap, (comparison.baseline, comparison.candidate))


def ability_chart(general: General, decision: str) -> Markup:
    """The change of general ability with its interval, beside the band of what is too much."""
    metric = Metric("general", "general ability", "number", True, "share")
    lost = (-math.inf, -general.margin)
    gap = Gap(general.difference, general.low, general.high, decision, lost)
    return _gap_chart("ability", metric, gap, ("before", "after"))


def _gap_chart(name: str, metric: Metric, gap: Gap, sides: tuple[str, str]) -> Markup:
    ends = _ends(gap.low, gap.high)
    reach = [0.0, gap.value, *ends, *(x for x in gap.band or () if math.isfinite(x))]
    margin = 0.08 * (max(reach) - min(reach)) or 1.0
    scale = Scale(min(reach) - margin, max(reach) + margin, 20, WIDTH - 20)
    shown = signed_difference(gap.value, metric.unit)
    interval = difference_interval(gap.low, gap.high, metric.unit) or "unknown"
    return figure(
        name,
        (WIDTH, 112),
        f"Difference in {metric.title}",
        f"{sides[1]} minus {sides[0]}: {shown}, interval {interval}.",
        [
            *_band(gap, scale),
            *_difference_axis(metric, scale),
            _interval(scale, ends, 56, f"whisker {gap.decision}"),
            element("circle", cx=scale(gap.value), cy=56, r=6, class_=f"dot {gap.decision}"),
            *_value_label(scale(gap.value), shown),
        ],
    )


def _band(gap: Gap, scale: Scale) -> list[Markup]:
    if gap.band is None:
        return []
    left, right = (scale(min(max(end, scale.low), scale.high)) for end in gap.band)
    return [rectangle(left, 34, right - left, 44, "band")]


def outcome_bar(segments: Sequence[Segment]) -> Markup:
    """One bar, all rows, parted by what became of them; numbers stand where there is room."""
    total = sum(segment.num_rows for segment in segments)
    scale = Scale(0, max(total, 1), 0, WIDTH)
    drawn: list[Markup] = []
    done = 0
    for segment in segments:
        start, end = scale(done), scale(done + segment.num_rows)
        done += segment.num_rows
        drawn.append(rectangle(start, 0, end - start - 1, 26, f"outcome {segment.outcome}"))
        if end - start > 9 * len(str(segment.num_rows)) + 8:
            middle = (start + end) / 2
            class_ = f"outcome-label on-{segment.outcome}"
            drawn.append(text(middle, 18, str(segment.num_rows), class_, "middle"))
    words = ", ".join(f"{segment.num_rows} {segment.title.lower()}" for segment in segments)
    return figure(
        "outcomes", (WIDTH, 26), "What became of the rows", f"{words}; {total} in all.", drawn
    )


def stage_bars(stages: Sequence[tuple[str, float]]) -> Markup:
    """Seconds of every stage, in the order in which they ran."""
    total = sum(seconds for _, seconds in stages)
    scale = Scale(0, max((seconds for _, seconds in stages), default=0), LABELS, WIDTH - VALUES)
    drawn: list[Markup] = []
    for row, (stage, seconds) in enumerate(stages):
        middle = 26 * row + 13
        share = f" ({plain_number(100 * seconds / total, 0)}\u00a0%)" if total else ""
        drawn += [
            text(LABELS - 14, middle + 5, shortened(stage, MAX_LABEL), "label", "end"),
            rectangle(LABELS, middle - 6, max(scale(seconds) - LABELS, 1), 12, "bar"),
            text(scale(seconds) + 8, middle + 5, duration(seconds) + share),
        ]
    words = "; ".join(f"{stage}: {duration(seconds)}" for stage, seconds in stages)
    return figure("stages", (WIDTH, 26 * len(stages)), "Time per stage", f"{words}.", drawn)


def _score_bar(metric: Metric, bar: Bar, top: int, scale: Scale) -> Markup:
    middle = top + ROW / 2
    kind = "tuned" if bar.is_tuned else "prompted"
    label = text(LABELS - 14, middle + 5, shortened(bar.label, MAX_LABEL), f"label {kind}", "end")
    estimate = bar.estimate
    if estimate is None or estimate.value is None or not math.isfinite(estimate.value):
        return group([label, text(LABELS + 6, middle + 5, "no data", "interval-text")])
    edge = scale(estimate.value)
    parts = [
        label,
        rectangle(LABELS, middle - THICKNESS / 2, edge - LABELS, THICKNESS, f"bar {kind}"),
    ]
    ends = _ends(estimate.low, estimate.high)
    parts.append(_interval(scale, ends, middle, "whisker"))
    edge = max(edge, *map(scale, ends), LABELS)
    value = element("tspan", metric_value(estimate.value, metric.unit), class_=f"value {kind}")
    interval = element(
        "tspan", metric_interval(estimate.low, estimate.high, metric.unit), dx=10,
        class_="interval-text",
    )  # fmt: skip
    parts.append(element("text", value, interval, x=edge + 12, y=middle + 5))
    return group(parts)


def _ends(low: float | None, high: float | None) -> tuple[float, ...]:
    known = tuple(end for end in (low, high) if end is not None and math.isfinite(end))
    return known if len(known) == 2 else ()


def _interval(scale: Scale, ends: Sequence[float], y: float, class_: str) -> Markup:
    if not ends:
        return Markup("")
    low, high = map(scale, ends)
    return group(
        [line(low, y, high, y, ""), line(low, y - 5, low, y + 5, ""),
         line(high, y - 5, high, y + 5, "")],
        class_=class_,
    )  # fmt: skip


def _value_axis(metric: Metric, scale: Scale, bottom: float) -> Markup:
    marks = ticks(0, scale.high, 4)
    labels = _tick_labels(metric, marks)
    return group(
        part
        for mark, label in zip(marks, labels, strict=True)
        for part in (
            line(scale(mark), 8, scale(mark), bottom, "grid" if mark else "axis"),
            text(scale(mark), bottom + 20, label, "tick", "middle"),
        )
    )


def _difference_axis(metric: Metric, scale: Scale) -> list[Markup]:
    marks = ticks(scale.low, scale.high, 8)
    up, down = ("better", "worse") if metric.higher_is_better else ("worse", "better")
    right, left = f"{up} \u2192", f"\u2190 {down}"
    zero = scale(0)
    return [
        *(line(scale(mark), 34, scale(mark), 78, "grid") for mark in marks),
        line(zero, 26, zero, 84, "axis"),
        *(
            text(scale(mark), 98, label, "tick", "middle")
            for mark, label in zip(marks, _tick_labels(metric, marks, signed=True), strict=True)
        ),
        *([text(zero - 8, 22, left, "tick", "end")] if zero > 120 else []),
        *([text(zero + 8, 22, right, "tick")] if zero < WIDTH - 120 else []),
    ]


def _value_label(x: float, words: str) -> list[Markup]:
    half = 4.2 * len(words)
    inside = min(max(x, half), WIDTH - half)
    return [text(inside, 44, words, "value", "middle")]


def _tick_labels(metric: Metric, marks: list[float], signed: bool = False) -> list[str]:
    factor = 100 if metric.unit == "share" else 1
    values = [mark * factor for mark in marks]
    decimals = tick_decimals(values)
    percent = "\u00a0%" if metric.unit == "share" and not signed else ""
    return [
        ("+" if signed and value > 1e-9 else "") + plain_number(value, decimals) + percent
        for value in values
    ]


def _ceiling(metric: Metric, bars: Sequence[Bar]) -> float:
    """End of the axis: the whole range, or less where all bars would be slivers."""
    estimates = [bar.estimate for bar in bars if bar.estimate]
    values = [value for e in estimates for value in (e.value, e.high) if value is not None]
    highest = max(filter(math.isfinite, values), default=0.0)
    whole = {"share": 1.0, "points": 100.0}.get(metric.unit, highest)
    if highest > 0.4 * whole and metric.unit in ("share", "points"):
        return max(whole, highest)
    marks = ticks(0, highest, 4)
    if len(marks) == 1:
        return whole or 1.0
    return marks[-1] if marks[-1] >= highest else marks[-1] + marks[1]


def _said(metric: Metric, estimate: Estimate | None) -> str:
    if estimate is None or estimate.value is None:
        return "no data"
    interval = metric_interval(estimate.low, estimate.high, metric.unit)
    value = metric_value(estimate.value, metric.unit)
    return f"{value} ({interval})" if interval else value
