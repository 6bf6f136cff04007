"""The page of a search for settings: each attempt's loss by what it tried, and all in a table."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from luthier.report.numbers import counted, duration, loss
from luthier.report.page import render_template
from luthier.report.svg import Scale, element, figure, line, text, tick_decimals, ticks

WIDTH, HEIGHT = 440, 260
LEFT, RIGHT, TOP, BOTTOM = 56, 424, 20, 210
HIGHEST_SHARE = 0.85
"""Of losses that are drawn at their place; the largest few would flatten all others."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """Settings that were tried, and the validation loss they came to."""

    number: int
    """From 1."""
    settings: Mapping[str, str]
    loss: float | None
    """The best on validation rows; of one that was broken off, until then."""
    state: str
    """finished, broken off or failed."""
    seconds: float
    error: str = ""


def render_search_page(title: str, fields: Sequence[str], attempts: Sequence[Attempt]) -> str:
    """The whole page as text; it needs nothing but a browser."""
    known = sorted((a for a in attempts if a.loss is not None and a.state == "finished"),
                   key=lambda a: a.loss or 0.0)  # fmt: skip
    rest = [a for a in attempts if a not in known]
    lines = [
        (a.number, [a.settings.get(field, "") for field in fields], loss(a.loss), a.state,
         duration(a.seconds), a.error)
        for a in (*known, *rest)
    ]  # fmt: skip
    best = known[0] if known else None
    words = f"{counted(len(attempts), 'attempt')}."
    if best is not None:
        chosen = ", ".join(f"{field} {value}" for field, value in best.settings.items())
        words += f" The least validation loss, {loss(best.loss)}, came with {chosen}."
    charts = [
        _scatter(f"by-{i}", field, attempts, best)
        for i, field in enumerate(fields)
        if any(a.loss is not None for a in attempts)
    ]
    return render_template("search_page.html", {
        "title": title, "words": words, "fields": fields, "lines": lines, "charts": charts,
    })  # fmt: skip


def _scatter(name: str, field: str, attempts: Sequence[Attempt], best: Attempt | None) -> Markup:
    """Losses by the values of a field; numbers by size, other values side by side."""
    shown = [a for a in attempts if a.loss is not None and field in a.settings]
    places, marks = _across([a.settings[field] for a in shown])
    losses = sorted(a.loss for a in shown if a.loss is not None)
    low, high = losses[0], losses[min(len(losses) - 1, int(HIGHEST_SHARE * len(losses)))]
    y = Scale(low - 0.05 * (high - low), high + 0.1 * (high - low) or low + 1.0, BOTTOM, TOP)
    values = ticks(y.low, y.high, 4)
    decimals = tick_decimals(values)
    parts = [line(LEFT, BOTTOM, RIGHT, BOTTOM, "axis"), text(0, 10, "validation loss", "tick")]
    for value in values:
        parts += [line(LEFT, y(value), RIGHT, y(value), "grid"),
                  text(LEFT - 8, y(value) + 4, f"{value:.{decimals}f}", "tick", "end")]  # fmt: skip
    for x, words in marks:
        parts.append(text(x, BOTTOM + 18, words, "tick", "middle"))
    parts.append(text(RIGHT, BOTTOM + 36, field, "tick", "end"))
    for place, attempt in zip(places, shown, strict=True):
        is_best, at = attempt is best, y(attempt.loss or 0.0)
        kind = "series-1 dot-filled" if attempt.state == "finished" else "dot-broken-off"
        parts.append(element("circle", cx=place, cy=at, r=4, class_=kind))
        if is_best:
            parts.append(element("circle", cx=place, cy=at, r=8, class_="best-ring"))
    said = f"Validation losses of {counted(len(shown), 'attempt')} by {field}."
    return figure(name, (WIDTH, HEIGHT), f"Loss by {field}", said, parts)


def _across(values: Sequence[str]) -> tuple[list[float], list[tuple[float, str]]]:
    """Where each value stands, and what is written beneath."""
    try:
        numbers = [float(value) for value in values]
    except ValueError:
        numbers = []
    if not numbers or len(set(numbers)) <= 6:
        names = sorted(set(values), key=lambda v: (float(v) if numbers else 0.0, v))
        x = Scale(-0.5, len(names) - 0.5, LEFT, RIGHT)
        return [x(names.index(value)) for value in values], [(x(i), n) for i, n in enumerate(names)]
    is_log = min(numbers) > 0 and max(numbers) >= 10 * min(numbers)
    laid = [math.log10(number) if is_log else number for number in numbers]
    x = Scale(min(laid), max(laid), LEFT + 12, RIGHT - 12)
    ends = sorted({min(laid), (min(laid) + max(laid)) / 2, max(laid)})
    return [x(value) for value in laid], [(x(e), f"{10**e if is_log else e:.2g}") for e in ends]
