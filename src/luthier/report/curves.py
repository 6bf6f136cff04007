"""Charts over steps: training and validation loss, and the learning rate.

Step points in, one `<svg>` out. The raw loss is drawn faint with every extreme kept, over it an
exponential mean; validation points are drawn as measured and the best one is named. A loss that is
not finite has no place on an axis and leaves a gap that the description counts.
"""

import math
from collections.abc import Sequence

from markupsafe import Markup

from luthier.report.numbers import count, counted, learning_rate, loss, plain_number
from luthier.report.svg import (
    Scale,
    element,
    figure,
    line,
    polyline,
    text,
    tick_decimals,
    ticks,
)
from luthier.report.values import RunLine, StepPoint, ValidationPoint

WIDTH = 920
LEFT, RIGHT = 56, 904
MAX_RUNS = 6
"""Runs that are drawn together; for more there are no colours that can be told apart."""
MAX_POINTS = 600
"""Points drawn per line; more could not be told apart and would only make the page heavy."""
SMOOTHED_SHARE = 40
"""The mean reaches back over about one part in so many of all steps."""

Point = tuple[float, float]


def best_point(validation: Sequence[ValidationPoint]) -> ValidationPoint | None:
    """The lowest finite validation loss, the first of equals."""
    finite = [point for point in validation if math.isfinite(point.loss)]
    return min(finite, key=lambda point: point.loss, default=None)


def loss_chart(
    curve: Sequence[StepPoint], validation: Sequence[ValidationPoint], *, of_rows: bool = False
) -> Markup:
    """Training loss per step, smoothed, and the validation points with the best marked.

    `of_rows` says that a row has one loss, not each of its tokens.
    """
    raw = [(float(p.step), p.loss) for p in curve if math.isfinite(p.loss)]
    checked = [(float(p.step), p.loss) for p in validation if math.isfinite(p.loss)]
    smooth = smoothed(raw)
    x, y = _step_scale(curve, validation), _loss_scale([*smooth, *checked] or [(0, 1)], raw)
    best = best_point(validation)
    # Methods that watch something are those whose loss is one number for a row.
    of_rows = of_rows or any(point.watched for point in validation)
    return figure(
        "loss",
        (WIDTH, 300),
        "Loss over steps",
        _loss_words(curve, raw, smooth, best),
        [
            *_frame(x, y, "loss, mean over rows" if of_rows else "loss, nats per token"),
            polyline(_placed(thinned(raw), x, y), "loss-raw"),
            polyline(_placed(thinned(smooth), x, y), "loss-smooth"),
            polyline(_placed(checked, x, y), "loss-validation"),
            *(element("circle", cx=px, cy=py, r=3.5, class_="validation-dot")
              for px, py in _placed(checked, x, y)),
            *(_best_mark(best, x, y) if best else []),
        ],
    )  # fmt: skip


def curves_together(runs: Sequence[RunLine]) -> Markup | None:
    """Training loss, smoothed, and validation loss of several runs, a colour for each."""
    shown = [run for run in runs if run.curve][:MAX_RUNS]
    if not shown:
        return None
    raws = [[(float(p.step), p.loss) for p in run.curve if math.isfinite(p.loss)] for run in shown]
    smooth = [smoothed(raw) for raw in raws]
    checked = [
        [(float(p.step), p.loss) for p in run.validation if math.isfinite(p.loss)] for run in shown
    ]
    steady = [point for own in (*smooth, *checked) for point in own] or [(0.0, 1.0)]
    points = [point for run in shown for point in run.curve]
    x = _step_scale(points, [point for run in shown for point in run.validation])
    y = _loss_scale(steady, [])
    parts = _frame(x, y, "loss")
    for number, (own, held) in enumerate(zip(smooth, checked, strict=True), 1):
        parts.append(polyline(_placed(thinned(own), x, y), f"series series-{number}"))
        parts.append(polyline(_placed(held, x, y), f"series series-{number} held-out"))
    ends = "; ".join(
        f"{run.name} ends at {loss(own[-1][1])}"
        for run, own in zip(shown, smooth, strict=True)
        if own
    )
    return figure("losses", (WIDTH, 300), "Losses of the runs over steps", f"{ends}.", parts)


def rate_chart(curve: Sequence[StepPoint]) -> Markup:
    """The learning rate at every step."""
    points = [(float(p.step), p.learning_rate) for p in curve if math.isfinite(p.learning_rate)]
    highest = max((rate for _, rate in points), default=0.0)
    x = _step_scale(curve, ())
    y = Scale(0, highest * 1.05 or 1.0, 110, 20)
    last = points[-1][1] if points else 0.0
    words = f"Rises to {learning_rate(highest)} and ends at {learning_rate(last)}."
    return figure(
        "rate",
        (WIDTH, 146),
        "Learning rate over steps",
        words,
        [
            *_step_axis(x, 110),
            line(LEFT, y(highest), RIGHT, y(highest), "grid"),
            text(LEFT - 8, y(highest) + 4, learning_rate(highest), "tick", "end"),
            text(LEFT - 8, y(0) + 4, "0", "tick", "end"),
            polyline(_placed(thinned(points), x, y), "rate-line"),
        ],
    )


def smoothed(points: Sequence[Point]) -> list[Point]:
    """Exponential mean with the start's bias taken out (Kingma and Ba 2015, section 3)."""
    keep = 1 - 1 / max(1.0, len(points) / SMOOTHED_SHARE)
    mean, weight, result = 0.0, 0.0, []
    for step, value in points:
        mean = keep * mean + (1 - keep) * value
        weight = keep * weight + (1 - keep)
        result.append((step, mean / weight))
    return result


def thinned(points: Sequence[Point], limit: int = MAX_POINTS) -> list[Point]:
    """At most `limit` points that keep the lowest and highest of every stretch."""
    if len(points) <= limit:
        return list(points)
    stretch = math.ceil(2 * len(points) / limit)
    kept: list[Point] = []
    for start in range(0, len(points), stretch):
        part = points[start : start + stretch]
        kept += sorted({min(part, key=lambda p: p[1]), max(part, key=lambda p: p[1])})
    return kept


def _placed(points: Sequence[Point], x: Scale, y: Scale) -> list[Point]:
    return [(x(step), y(value)) for step, value in points]


def _step_scale(curve: Sequence[StepPoint], validation: Sequence[ValidationPoint]) -> Scale:
    steps = [*(point.step for point in curve), *(point.step for point in validation)]
    return Scale(min([0, *steps]), max([1, *steps]), LEFT, RIGHT)


def _loss_scale(steady: Sequence[Point], raw: Sequence[Point]) -> Scale:
    """From zero, or closer where the curve would be flat; single raw peaks may be cut off."""
    values = [value for _, value in steady]
    low, high = min(values), max(values)
    high = min(max([high, *(value for _, value in raw)]), high + 0.35 * (high - low) + 1e-9)
    start = 0.0 if low < 0.5 * high else low - 0.15 * (high - low)
    marks = ticks(start, high, 5)
    step = marks[1] - marks[0] if len(marks) > 1 else high or 1.0
    return Scale(math.floor(start / step) * step, math.ceil(high / step - 1e-9) * step, 264, 20)


def _frame(x: Scale, y: Scale, title: str) -> list[Markup]:
    marks = ticks(y.low, y.high, 5)
    decimals = tick_decimals(marks)
    return [
        *_step_axis(x, 264),
        *(line(LEFT, y(mark), RIGHT, y(mark), "grid") for mark in marks),
        *(text(LEFT - 8, y(mark) + 4, plain_number(mark, decimals), "tick", "end")
          for mark in marks),
        text(0, 10, title, "tick"),
    ]  # fmt: skip


def _step_axis(x: Scale, bottom: int) -> list[Markup]:
    marks = [mark for mark in ticks(x.low, x.high, 8) if mark == int(mark)]
    return [
        line(LEFT, bottom, RIGHT, bottom, "axis"),
        *(line(x(mark), bottom, x(mark), bottom + 4, "axis") for mark in marks),
        *(text(x(mark), bottom + 18, count(int(mark)), "tick", "middle") for mark in marks),
        text(RIGHT, bottom + 32, "step", "tick", "end"),
    ]


def _best_mark(best: ValidationPoint, x: Scale, y: Scale) -> list[Markup]:
    place, height = x(best.step), y(best.loss)
    is_left = place > (LEFT + RIGHT) / 2
    words = f"best {loss(best.loss)} at step {count(best.step)}"
    return [
        line(place, 34, place, height - 8, "best-line"),
        text(place + (-8 if is_left else 8), 40, words, "best-text", "end" if is_left else "start"),
        element("circle", cx=place, cy=height, r=7, class_="best-ring"),
    ]


def _loss_words(
    curve: Sequence[StepPoint],
    raw: Sequence[Point],
    smooth: Sequence[Point],
    best: ValidationPoint | None,
) -> str:
    words = [f"{counted(len(curve), 'step')}."]
    if smooth:
        words.append(f"Smoothed training loss ends at {loss(smooth[-1][1])}.")
    if best:
        words.append(f"Best validation loss {loss(best.loss)} at step {count(best.step)}.")
    if len(raw) < len(curve):
        words.append(f"{counted(len(curve) - len(raw), 'loss value')} not finite, not drawn.")
    return " ".join(words)
