"""The few pieces that charts are drawn from: elements, scales, ticks, a figure with words.

Every text and attribute is escaped on its way in, so a chart is safe whatever its labels hold.
Colours and fonts live in the page's style sheet: charts name classes only, and follow light, dark
and print with the rest of the page.
"""

import math
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass

from markupsafe import Markup, escape

_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")


@dataclass(frozen=True, slots=True)
class Scale:
    """Maps values linearly to pixels."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        if self.high == self.low:
            return self.start
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)


def visible(text: str) -> str:
    """The text with characters that no document may hold replaced by their pictures."""
    return _CONTROL.sub(_picture, text)


def shortened(text: str, limit: int) -> str:
    """The text, with an ellipsis where it is longer than a label may be."""
    return text if len(text) <= limit else text[: limit - 1].rstrip() + "\u2026"


def element(tag: str, *children: str, **attributes: str | float) -> Markup:
    """One element; `class_` writes class, `text_anchor` writes text-anchor."""
    written = Markup("").join(
        Markup(' {}="{}"').format(_attribute_name(name), _attribute_value(value))
        for name, value in attributes.items()
    )
    content = Markup("").join(map(_content, children))
    return Markup("<{0}{1}>{2}</{0}>").format(tag, written, content)


def group(children: Iterable[Markup], **attributes: str | float) -> Markup:
    """A group of elements."""
    return element("g", *children, **attributes)


def text(x: float, y: float, words: str, class_: str = "label", anchor: str = "start") -> Markup:
    """A line of text; its anchor is start, middle or end."""
    return element("text", words, x=x, y=y, class_=class_, text_anchor=anchor)


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Markup:
    """A straight line."""
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)


def rectangle(x: float, y: float, width: float, height: float, class_: str) -> Markup:
    """A rectangle; a negative width, which rounding can give, becomes none."""
    return element("rect", x=x, y=y, width=max(width, 0.0), height=height, class_=class_)


def polyline(points: Iterable[tuple[float, float]], class_: str) -> Markup:
    """An open line through points."""
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return element("polyline", points=path, class_=class_)


def figure(
    name: str, size: tuple[int, int], title: str, description: str, children: Iterable[Markup]
) -> Markup:
    """A whole picture with a title and a description in words; `name` is unique on its page."""
    width, height = size
    return element(
        "svg",
        element("title", title, id=f"{name}-title"),
        element("desc", description, id=f"{name}-desc"),
        *children,
        class_="chart",
        viewBox=f"0 0 {width} {height}",
        role="img",
        aria_labelledby=f"{name}-title {name}-desc",
    )


def ticks(low: float, high: float, wanted: int) -> list[float]:
    """About `wanted` round values from low to high: multiples of 1, 2, 2.5 or 5 times ten^n."""
    rough = (high - low) / wanted
    if not rough >= sys.float_info.min:  # no range, or one too small to be divided
        return [low]
    magnitude = 10.0 ** math.floor(math.log10(rough))
    step = magnitude * next(factor for factor in (1, 2, 2.5, 5, 10) if factor * magnitude >= rough)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [index * step for index in range(first, last + 1)]


def tick_decimals(values: list[float]) -> int:
    """Decimals that tell neighbouring ticks apart."""
    for decimals in range(6):
        if all(math.isclose(round(value, decimals), value, abs_tol=1e-9) for value in values):
            return decimals
    return 6


def _picture(match: re.Match[str]) -> str:
    code = ord(match.group())
    return chr(0x2400 + code) if code < 0x20 else "\ufffd"


def _content(child: str) -> Markup:
    return child if isinstance(child, Markup) else escape(visible(child))


def _attribute_name(name: str) -> str:
    return name.rstrip("_").replace("_", "-")


def _attribute_value(value: str | float) -> str:
    if isinstance(value, str):
        return visible(value)
    return f"{value:.1f}".removesuffix(".0")
