"""What is wrong with a dataset: problems, each with its rows, why it matters and what mends it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from luthier.curation.looking import Growing, Seen
from luthier.curation.privacy import excerpt

Severity = Literal["error", "warning", "note"]
Fix = Literal["drop", "mask", "normalise", "relabel", ""]
Positions = npt.NDArray[np.int64]

MAX_CASES = 200
"""Rows of a problem that are shown; all are counted, and all are mended."""


@dataclass(frozen=True, slots=True)
class Case:
    """A row that a problem is about."""

    position: int
    place: str
    text: str
    """What of the row shows it."""
    detail: str = ""
    """What is wrong with it, such as the other row."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One kind of thing that is wrong."""

    name: str
    severity: Severity
    title: str
    """In words, with how many."""
    why: str
    """Why it matters."""
    positions: Positions
    """All rows it is about, from 0."""
    cases: tuple[Case, ...] = ()
    fix: Fix = ""
    """What mends it; empty where only a person can."""

    @property
    def num_rows(self) -> int:
        """How many rows it is about."""
        return len(self.positions)


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of problem: how it is named and explained."""

    name: str
    severity: Severity
    title: str
    """Of many rows, with {n} for how many."""
    why: str
    fix: Fix = ""


class Check(Protocol):
    """Looks at all rows, block by block, and then says what it found."""

    @property
    def name(self) -> str:
        """By which it is chosen and left out."""
        ...

    def see(self, rows: Sequence[Seen]) -> None:
        """Look at some more rows."""
        ...

    def problems(self) -> Iterable[Problem]:
        """What is wrong, after all rows were seen."""
        ...


@dataclass
class Gathered:
    """Rows of one kind of problem, as they are found."""

    kind: Kind
    positions: Growing = field(default_factory=lambda: Growing(np.int64))
    cases: list[Case] = field(default_factory=list)

    def add(self, row: Seen, text: str, detail: str = "", around: int = 0) -> None:
        """One more, and the place in its text that shows it."""
        self.positions.extend([row.position])
        if len(self.cases) < MAX_CASES:
            self.cases.append(Case(row.position, row.place, excerpt(text, around), detail))

    def problem(self) -> Iterable[Problem]:
        """The problem, if there are rows of it."""
        if len(self.positions):
            yield problem_of(self.kind, self.positions.array, self.cases)


def problem_of(kind: Kind, positions: Any, cases: Sequence[Case]) -> Problem:
    """The problem that rows at these positions make."""
    found = np.unique(np.asarray(positions, dtype=np.int64))
    rows = "1 row" if len(found) == 1 else f"{len(found):,} rows"
    title = kind.title.format(n=rows)
    return Problem(
        kind.name, kind.severity, title, kind.why, found, tuple(cases[:MAX_CASES]), kind.fix
    )
