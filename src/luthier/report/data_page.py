"""The page about a dataset: what is wrong with it, what mends it, and what it is made of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from markupsafe import Markup

from luthier.report.numbers import count, counted, plain_number
from luthier.report.page import render_template
from luthier.report.svg import Scale, figure, line, rectangle, shortened, text

Severity = Literal["error", "warning", "note"]
SHOWN = 20
"""Rows of a problem that the page shows."""
WIDTH, BOTTOM, LEFT = 920, 150, 8
MAX_BARS = 30
LABELS, ROW = 232, 26


@dataclass(frozen=True, slots=True)
class FoundRow:
    """A row that a problem is about."""

    place: str
    text: str
    detail: str


@dataclass(frozen=True, slots=True)
class FoundProblem:
    """One kind of thing that is wrong."""

    name: str
    severity: Severity
    title: str
    why: str
    num_rows: int
    rows: tuple[FoundRow, ...]
    command: str
    """What mends it; empty where only a person can."""


@dataclass(frozen=True, slots=True)
class Lengths:
    """How long rows are: how many between each edge and the next."""

    unit: str
    edges: tuple[float, ...]
    counts: tuple[int, ...]
    median: float
    longest: int
    limit: int | None = None


@dataclass(frozen=True, slots=True)
class GroupRate:
    """How often rows of a group have a label, with an interval at 95 %."""

    column: str
    group: str
    num_rows: int
    label: str
    rate: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class DataReport:
    """Everything the page says."""

    title: str
    created_at: datetime
    num_rows: int
    problems: tuple[FoundProblem, ...]
    splits: Mapping[str, int] = field(default_factory=dict)
    labels: Mapping[str, int] = field(default_factory=dict)
    languages: Mapping[str, int] = field(default_factory=dict)
    slices: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    rates: tuple[GroupRate, ...] = ()
    lengths: Lengths | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)


def render_data_page(report: DataReport) -> str:
    """The whole page as text; it needs nothing but a browser."""
    counts = {
        kind: sum(problem.severity == kind for problem in report.problems)
        for kind in ("error", "warning", "note")
    }
    return render_template("data_page.html", {
        "report": report, "shown": SHOWN, "verdict": _verdict(counts),
        "created": f"{report.created_at.day} {report.created_at:%B %Y, %H:%M %Z}".rstrip(),
        "length_chart": _length_chart(report.lengths) if report.lengths else None,
        "label_chart": _bars("labels", "Labels", report.labels) if report.labels else None,
        "language_chart": _bars("languages", "Languages", report.languages)
        if len(report.languages) > 1 else None,
        "slice_charts": [(c, _bars(f"slice-{i}", c, v))
                         for i, (c, v) in enumerate(report.slices.items())],
        "seconds": sorted(report.seconds.items(), key=lambda pair: -pair[1]),
    })  # fmt: skip


def _verdict(counts: Mapping[str, int]) -> tuple[str, str, str]:
    """Class, symbol and words of the headline."""
    if counts["error"]:
        return "worse", "\u2716", f"{counted(counts['error'], 'thing')} must be mended"
    if counts["warning"]:
        return "unclear", "\u25b2", f"{counted(counts['warning'], 'thing')} to look at"
    return "better", "\u2714", "Nothing stands out"


def _length_chart(lengths: Lengths) -> Markup:
    """A histogram whose bins grow, as lengths do."""
    highest = max(lengths.counts, default=1) or 1
    across = Scale(0, len(lengths.counts), LEFT, WIDTH - LEFT)
    height = Scale(0, highest, BOTTOM, 16)
    parts = [line(LEFT, BOTTOM, WIDTH - LEFT, BOTTOM, "axis")]
    for i, number in enumerate(lengths.counts):
        is_over = lengths.limit is not None and lengths.edges[i] > lengths.limit
        top = height(number)
        parts.append(
            rectangle(across(i) + 1, top, across(i + 1) - across(i) - 2, BOTTOM - top,
                      "bar" if is_over else "bar tuned")
        )  # fmt: skip
    for i in range(0, len(lengths.edges), 4):
        parts.append(text(across(i), BOTTOM + 18, count(int(lengths.edges[i])), "tick", "middle"))
    parts.append(text(WIDTH - LEFT, BOTTOM + 32, lengths.unit, "tick", "end"))
    words = (
        f"Median {plain_number(lengths.median, 0)} {lengths.unit}, longest "
        f"{count(lengths.longest)}."
    )
    return figure("lengths", (WIDTH, BOTTOM + 38), "Lengths of rows", words, parts)


def _bars(name: str, title: str, counts: Mapping[str, int]) -> Markup:
    """How many rows each value has, the most frequent first."""
    items: Sequence[tuple[str, int]] = sorted(counts.items(), key=lambda item: -item[1])
    shown = items[:MAX_BARS]
    highest = max((number for _, number in shown), default=1) or 1
    across = Scale(0, highest, LABELS, WIDTH - 90)
    parts = []
    for i, (value, number) in enumerate(shown):
        middle = i * ROW + ROW / 2
        parts += [
            text(LABELS - 10, middle + 5, shortened(value, 30), "label", "end"),
            rectangle(LABELS, middle - 8, across(number) - LABELS, 16, "bar tuned"),
            text(across(number) + 8, middle + 5, count(number), "value"),
        ]
    more = len(items) - len(shown)
    if more:
        words = f"and {counted(more, 'more value')}"
        parts.append(text(LABELS, len(shown) * ROW + 18, words, "tick"))
    said = ", ".join(f"{value} {number}" for value, number in shown[:5])
    size = (WIDTH, len(shown) * ROW + (26 if more else 4))
    return figure(name, size, title, f"Rows of each value: {said}.", parts)
