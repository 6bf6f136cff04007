"""Rows that are there more than once, and held-out rows that training rows hold already.

Rows are remembered as hashes of what they ask and answer, their texts in a spool. Two rows are the
same where both are equal, nearly the same where the questions are alike and the answers equal.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import blake2b
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from luthier.curation.leaks import find_runs
from luthier.curation.looking import Growing, Seen, Spool, folded
from luthier.curation.near import THRESHOLD, find_alike, piece_set, similarity
from luthier.curation.privacy import excerpt
from luthier.curation.problems import MAX_CASES, Case, Kind, Problem, problem_of
from luthier.data import Chat, Example, Labelled, Pair, Text, canonical, prompt_key

REPEATED = Kind(
    "exact-duplicates", "warning", "{n} saying what an earlier row says",
    "they count twice in training, and make the dataset look larger than it is", "drop",
)  # fmt: skip
NEAR = Kind(
    "near-duplicates", "warning",
    "{n} asking nearly what an earlier row asks, with the same answer",
    "they teach little, and where one of two is held out it is as good as known", "drop",
)  # fmt: skip
CONFLICTING = Kind(
    "conflicting-answers", "warning", "{n} asking the same as others, with different answers",
    "a model cannot learn both; where the answers are labels, at least one of them is wrong",
)  # fmt: skip
LEAKED = Kind(
    "leaked-questions", "error", "{n} to learn from, asking what held-out rows ask",
    "the model has seen what it is judged on, and the score says nothing about new rows", "drop",
)  # fmt: skip
NEARLY_LEAKED = Kind(
    "near-leaks", "warning", "{n} to learn from, with nearly what held-out rows ask",
    "the model has seen most of what it is judged on, and scores too well", "drop",
)  # fmt: skip
MAX_OTHERS = 50
"""Held-out rows of a group that a training row is measured against."""
HASHES = np.dtype(
    [("question", "<u8"), ("answer", "<u8"), ("position", "<i8"), ("held", "?"), ("only", "?")]
)
"""`only` is whether a question has only one right answer."""

Numbers = npt.NDArray[np.int64]
Records = npt.NDArray[Any]
Pairs = list[tuple[int, int]]
"""Rows, by number, each with another."""


@dataclass
class OverlapCheck:
    """Compares every row with all others."""

    name: ClassVar[str] = "overlap"

    spool: Spool
    """Receives the questions, white space and case aside."""
    shown: Spool
    """Receives what a report shows of each row."""
    places: Spool
    """Receives the rows' places."""
    threshold: float = THRESHOLD
    _hashes: Growing = field(default_factory=lambda: Growing(HASHES))

    def __post_init__(self) -> None:
        self._pieces = lru_cache(2**12)(lambda number: piece_set(self.spool.content(number)))

    def see(self, rows: Sequence[Seen]) -> None:
        """Remember hashes and texts."""
        found = np.empty(len(rows), HASHES)
        for i, row in enumerate(rows):
            question, answer = keys_of(row)
            has_one = isinstance(row.example, Chat | Labelled) or is_scored(row.example)
            found[i] = (_hash(question), _hash(answer), row.position, is_held_out(row), has_one)
        self._hashes.extend(found)
        self.spool.add([folded(row.question or row.answer) for row in rows])
        self.shown.add(["  ".join(filter(None, (r.question[:1000], r.answer[:500]))) for r in rows])
        self.places.add([row.place for row in rows])

    def problems(self) -> Iterable[Problem]:
        """Equal rows, conflicts, leaks, and what is nearly so."""
        rows = self._hashes.array
        repeated, conflicting, leaked = _equal(rows)
        yield from self._told(REPEATED, repeated, "as {}")
        yield from self._told(CONFLICTING, conflicting, "otherwise in {}")
        yield from self._told(LEAKED, leaked, "asked in {} too, which is held out")
        groups = self.groups()
        known = {number for number, _ in (*repeated, *leaked)}
        yield from self._near(groups, rows, known)
        yield from self._near_leaks(groups, rows, known)

    def groups(self) -> Numbers:
        """Group of each row by what it asks: the number of the first that asks nearly the same."""
        return find_alike(self.spool, self.threshold)

    def _near(self, groups: Numbers, rows: Records, known: set[int]) -> Iterator[Problem]:
        first: dict[tuple[int, int, bool], int] = {}
        found: Pairs = []
        said = {}
        for number in _grouped(groups):
            row = rows[number]
            key = (int(groups[number]), int(row["answer"]), bool(row["held"]))
            other = first.setdefault(key, number)
            if other == number or number in known:
                continue
            share = self._share(number, other)
            if share >= self.threshold:
                found.append((number, other))
                said[number] = f"{100 * share:.0f} % like {{}}"
        yield from self._told(NEAR, found, said)

    def _near_leaks(self, groups: Numbers, rows: Records, known: set[int]) -> Iterator[Problem]:
        held: dict[int, list[int]] = defaultdict(list)
        taught: list[int] = []
        for number in _grouped(groups):
            (held[int(groups[number])] if rows["held"][number] else taught).append(number)
        found: dict[int, tuple[int, str]] = {}
        for number in taught:
            others = held.get(int(groups[number]), ())[:MAX_OTHERS]
            if not others or number in known:
                continue
            best = max(others, key=lambda other: self._share(number, other))
            share = self._share(number, best)
            if share >= self.threshold:
                found[number] = (best, f"{100 * share:.0f} % like {{}}, which is held out")
        asked = np.flatnonzero(rows["held"])
        for other, number, run in find_runs(self.spool, asked.tolist(), ~rows["held"]):
            if number not in known:
                said = f"{len(run)} characters in a row of {{}}, which is held out"
                found.setdefault(number, (other, said))
        pairs = [(number, other) for number, (other, _) in found.items()]
        yield from self._told(NEARLY_LEAKED, pairs, {n: said for n, (_, said) in found.items()})

    def _share(self, one: int, other: int) -> float:
        return similarity(self._pieces(one), self._pieces(other))

    def _told(
        self, kind: Kind, found: Sequence[tuple[int, int]], said: str | dict[int, str]
    ) -> Iterator[Problem]:
        """The problem of rows, each with another that it is about."""
        if not found:
            return
        rows = self._hashes.array
        cases = [
            Case(
                int(rows["position"][number]),
                self.places.text(number),
                excerpt(self.shown.text(number)),
                (said if isinstance(said, str) else said[number]).replace(
                    "{}", self.places.text(other), 1
                ),
            )
            for number, other in sorted(found)[:MAX_CASES]
        ]
        yield problem_of(kind, rows["position"][[number for number, _ in found]], cases)


def is_held_out(row: Seen) -> bool:
    """Whether the row is judged on, not learnt from."""
    return row.split in ("validation", "test")


def keys_of(row: Seen) -> tuple[str, str]:
    """What makes two questions equal, and two rows of one question."""
    example = row.example
    if isinstance(example, Text):
        return folded(example.text), ""
    if isinstance(example, Labelled):
        return prompt_key(example), "\0".join(sorted(folded(label) for label in example.labels))
    if isinstance(example, Chat):
        return prompt_key(example), folded(row.answer)
    return prompt_key(example), folded(canonical(example))


def is_scored(example: Example) -> bool:
    """Whether two texts have a number that says how alike they are."""
    return isinstance(example, Pair) and example.score is not None


def _hash(text: str) -> int:
    """Among 5 million texts two different ones have one hash but by a chance of 10**-6."""
    digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def _grouped(groups: Numbers) -> list[int]:
    """Rows that are not alone in their group, in order."""
    sizes = np.bincount(groups, minlength=len(groups)) if len(groups) else np.empty(0, int)
    return [int(number) for number in np.flatnonzero(sizes[groups] > 1)]


def _equal(rows: Records) -> tuple[Pairs, Pairs, Pairs]:
    """Rows with an earlier one they equal, one they contradict, and a held-out one they ask as."""
    repeated: Pairs = []
    conflicting: Pairs = []
    leaked: Pairs = []
    for members in _same(rows["question"]):
        some = rows[members]
        held = members[some["held"]]
        first: dict[tuple[int, bool], int] = {}
        for number, answer, is_held in zip(
            members.tolist(), some["answer"].tolist(), some["held"].tolist(), strict=True
        ):
            earlier = first.setdefault((answer, is_held), number)
            if earlier != number:
                repeated.append((number, earlier))
            if not is_held and len(held):
                leaked.append((number, int(held[0])))
        answers = dict(zip(some["answer"].tolist(), members.tolist(), strict=True))
        if len(answers) > 1 and some["only"].all():
            (a, other), (_, another) = [*answers.items()][:2]
            pairs = zip(members.tolist(), some["answer"].tolist(), strict=True)
            conflicting += [(n, another if answer == a else other) for n, answer in pairs]
    return repeated, conflicting, leaked


def _same(values: npt.NDArray[np.uint64]) -> Iterator[Numbers]:
    """Numbers of rows with one value, in order, where there are several."""
    order = np.argsort(values, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(values[order]) != 0, True)) + 1
    starts = np.append(0, ends[:-1])
    for i in np.flatnonzero(ends - starts > 1):
        yield order[starts[i] : ends[i]]
