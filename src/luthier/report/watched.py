"""How a preference method fares on held-out rows: one small chart for each thing watched.

Each has a line that says what would be the case if nothing had been learnt.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from luthier.report.numbers import count, plain_number
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
from luthier.report.values import ValidationPoint

WIDTH, HEIGHT = 440, 150
LEFT, RIGHT, TOP, BOTTOM = 52, 428, 12, 116
HIGHEST = 1e300
"""What is larger, or no number, has no place on an axis."""


@dataclass(frozen=True, slots=True)
class _Meaning:
    """What a watched number says."""

    title: str
    words: str
    idle: float
    """Its value when nothing has been learnt."""


MEANINGS = {
    "preference_accuracy": _Meaning(
        "Preference accuracy",
        "share of held-out rows whose better answer has the higher reward; 0.5 is chance",
        0.5,
    ),
    "reward_margin": _Meaning(
        "Reward margin", "reward of the better answer less that of the worse, mean", 0.0
    ),
    "chosen_logratio": _Meaning(
        "Likelihood of the better answer",
        "nats gained since the start; below 0 the model has moved away from it too",
        0.0,
    ),
    "length_bias": _Meaning(
        "Length bias",
        "share of rows where the longer answer has the higher reward, less the share where it is "
        "the better one",
        0.0,
    ),
    "kl_to_start": _Meaning(
        "Divergence from the start", "nats per token of held-out answers (exact KL)", 0.0
    ),
}


@dataclass(frozen=True, slots=True)
class WatchedChart:
    """A chart, its title, and what it shows in words."""

    title: str
    words: str
    chart: Markup


def watched_charts(validation: Sequence[ValidationPoint]) -> list[WatchedChart]:
    """A chart for everything watched at the validations, in the order of MEANINGS."""
    found = []
    for name, meaning in MEANINGS.items():
        points = [
            (point.step, point.watched[name])
            for point in validation
            if abs(point.watched.get(name, math.nan)) < HIGHEST
        ]
        if points:
            found.append(WatchedChart(meaning.title, meaning.words, _chart(name, meaning, points)))
    return found


def _chart(name: str, meaning: _Meaning, points: Sequence[tuple[int, float]]) -> Markup:
    values = [meaning.idle, *(value for _, value in points)]
    room = 0.1 * (max(values) - min(values)) or 0.1
    x = Scale(0, max(1, *(step for step, _ in points)), LEFT, RIGHT)
    y = Scale(min(values) - room, max(values) + room, BOTTOM, TOP)
    marks = ticks(y.low, y.high, 4)
    decimals = tick_decimals(marks)
    placed = [(x(step), y(value)) for step, value in points]
    last_step, last = points[-1]
    steps = [mark for mark in ticks(x.low, x.high, 4) if mark == int(mark)]
    return figure(
        f"watched-{name}",
        (WIDTH, HEIGHT),
        f"{meaning.title} over steps",
        f"{meaning.words}. Ends at {plain_number(last, 3)} at step {count(last_step)}.",
        [
            *(line(LEFT, y(mark), RIGHT, y(mark), "grid") for mark in marks),
            *(text(LEFT - 8, y(mark) + 4, plain_number(mark, decimals), "tick", "end")
              for mark in marks),
            line(LEFT, BOTTOM, RIGHT, BOTTOM, "axis"),
            *(text(x(mark), BOTTOM + 18, count(int(mark)), "tick", "middle") for mark in steps),
            text(RIGHT, BOTTOM + 32, "step", "tick", "end"),
            line(LEFT, y(meaning.idle), RIGHT, y(meaning.idle), "idle-line"),
            polyline(placed, "loss-validation"),
            *(element("circle", cx=px, cy=py, r=3.5, class_="validation-dot") for px, py in placed),
        ],
    )  # fmt: skip
