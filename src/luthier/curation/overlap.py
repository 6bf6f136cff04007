"""Rows that are there more than once, and held-out rows that training rows hold already.

Rows are remembered as hashes of what they ask and answer, their texts in a spool. Two rows are the
same where both are equal to the letter, nearly the same where the questions are alike and the
answers equal. A question is known where its words are, whatever their case.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from luthier.curation.leaks import find_runs
from luthier.curation.looking import Growing, Seen, Spool, folded
from luthier.curation.meaning import MEANING, MEANT, Vectors, find_known, find_meant
from luthier.curation.near import THRESHOLD, find_alike, piece_sets, similarity
from luthier.curation.privacy import excerpt
from luthier.curation.problems import MAX_CASES, Case, Kind, Problem, problem_of
from luthier.data import (
    Chat,
    Example,
    Labelled,
    Pair,
    Preference,
    Rated,
    Text,
    canonical,
    prompt_key,
)

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
REWORDED = Kind(
    "reworded-duplicates", "note",
    "{n} asking in other words what an earlier row asks, with the same answer",
    "they teach less than their number says; a model of texts found them, which may be wrong: look "
    "at them before they are left out", "drop",
)  # fmt: skip
REWORDED_LEAK = Kind(
    "reworded-leaks", "note", "{n} to learn from, asking in other words what held-out rows ask",
    "the model has learnt nearly what it is judged on, and the score says less about new rows; a "
    "model of texts found them, which may be wrong: look at them before they are left out", "drop",
)  # fmt: skip
MAX_OTHERS = 50
"""Held-out rows of a group that a training row is measured against."""
HASHES = np.dtype(
    [("question", "<u8"), ("exact", "<u4"), ("answer", "<u4"), ("words", "<u4"),
     ("position", "<i4"), ("held", "?"), ("only", "?")]
)  # fmt: skip
"""`question` is of the words of what is asked, `exact` of all its characters, `answer` of those of
the answer, `words` of the answer's words; `only` is whether a question has only one right answer.
Small, for there is one for each row; all but the first tell only rows of one question apart."""
HALF = 0xFFFFFFFF

Numbers = npt.NDArray[np.int64]
Records = npt.NDArray[Any]
Flags = npt.NDArray[np.bool_]
OTHERS = MEANT
"""Rows, by number, each with another, and how alike they are."""


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
    vectors: Vectors | None = None
    """Makes and receives the questions' vectors, where a model of texts was named."""
    meaning: float = MEANING
    """Cosine from which two questions mean nearly the same."""
    _hashes: Growing = field(default_factory=lambda: Growing(HASHES))

    def __post_init__(self) -> None:
        self._pieces = piece_sets(self.spool)

    def see(self, rows: Sequence[Seen]) -> None:
        """Remember hashes and texts."""
        found = np.empty(len(rows), HASHES)
        for i, row in enumerate(rows):
            question, exact, answer = map(_hash, keys_of(row))
            words = _hash(folded(row.answer)) if isinstance(row.example, Chat) else answer
            has_one = isinstance(row.example, Chat | Labelled) or is_scored(row.example)
            found[i] = (
                question, exact & HALF, answer & HALF, words & HALF, row.position,
                is_held_out(row), has_one,
            )  # fmt: skip
        self._hashes.extend(found)
        self.spool.add([folded(row.question or row.answer) for row in rows])
        if self.vectors is not None:
            self.vectors.add([row.question or row.answer for row in rows])
        self.shown.add(["  ".join(filter(None, (r.question[:1000], r.answer[:500]))) for r in rows])
        self.places.add([row.place for row in rows])

    def problems(self) -> Iterable[Problem]:
        """Equal rows, conflicts, leaks, and what is nearly so."""
        rows = self._hashes.array
        repeated, conflicting, leaked = _equal(rows)
        yield from self._told(REPEATED, repeated, lambda measure: "as {}")
        yield from self._told(CONFLICTING, conflicting, lambda measure: "otherwise in {}")
        yield from self._told(LEAKED, leaked, lambda measure: "asked in {} too, which is held out")
        groups = self.groups()
        is_known = np.zeros(len(rows), dtype=bool)
        for found in (repeated, leaked):
            is_known[found.array["number"]] = True
        near, leaks = self._near(groups, is_known), self._near_leaks(groups, is_known)
        yield from self._told(NEAR, near, _share_of)
        yield from self._told(NEARLY_LEAKED, leaks, _leak_of)
        if self.vectors is not None:
            for found in (near, leaks):
                is_known[found.array["number"]] = True
            yield from self._told(REWORDED, self._reworded(self.vectors, is_known), _meaning_of)
            known = self._reworded_leaks(self.vectors, is_known)
            yield from self._told(REWORDED_LEAK, known, _meaning_of)

    def groups(self) -> Numbers:
        """Group of each row by what it asks: the number of the first that asks nearly the same."""
        return find_alike(self.spool, self.threshold)

    def _near(self, groups: Numbers, is_known: Flags) -> Growing:
        rows, found = self._hashes.array, Growing(OTHERS)
        for members in _same(groups):
            first: dict[tuple[int, bool], int] = {}
            for number in members.tolist():
                key = (int(rows["answer"][number]), bool(rows["held"][number]))
                other = first.setdefault(key, number)
                if other == number or is_known[number]:
                    continue
                share = self._share(number, other)
                if share >= self.threshold:
                    _add(found, number, other, share)
        return found

    def _near_leaks(self, groups: Numbers, is_known: Flags) -> Growing:
        is_held, found = self._hashes.array["held"], Growing(OTHERS)
        for members in _same(groups):
            held = members[is_held[members]][:MAX_OTHERS].tolist()
            taught = members[~is_held[members] & ~is_known[members]]
            for number in taught.tolist() if held else ():
                shares = ((self._share(number, other), other) for other in held)
                near = next((pair for pair in shares if pair[0] >= self.threshold), None)
                if near is not None:
                    _add(found, number, near[1], near[0])
        is_told = is_known.copy()
        is_told[found.array["number"]] = True
        for other, number, run in find_runs(self.spool, np.flatnonzero(is_held), ~is_held):
            if not is_told[number]:
                is_told[number] = True
                _add(found, number, other, len(run))
        return found

    def _reworded(self, vectors: Vectors, is_known: Flags) -> Growing:
        """Rows that mean what an earlier one with the same answer does, in the same split."""
        rows, found = self._hashes.array, Growing(OTHERS)
        for of_answer in _same(rows["answer"]):
            for is_held in (False, True):
                members = of_answer[(rows["held"][of_answer] == is_held) & ~is_known[of_answer]]
                found.extend(find_meant(vectors, np.sort(members), self.meaning))
        return found

    def _reworded_leaks(self, vectors: Vectors, is_known: Flags) -> Growing:
        is_held, found = self._hashes.array["held"], Growing(OTHERS)
        taught = np.flatnonzero(~is_held & ~is_known)
        found.extend(find_known(vectors, np.flatnonzero(is_held), taught, self.meaning))
        return found

    def _share(self, one: int, other: int) -> float:
        return similarity(self._pieces(one), self._pieces(other))

    def _told(self, kind: Kind, found: Growing, say: Callable[[float], str]) -> Iterator[Problem]:
        """The problem of rows, each with another that it is about; `say` has {} for its place."""
        if not len(found):
            return
        others, positions = found.array, self._hashes.array["position"]
        first = np.argsort(others["number"], kind="stable")[:MAX_CASES]
        cases = [
            Case(
                int(positions[number]),
                self.places.text(number),
                excerpt(self.shown.text(number)),
                say(measure).replace("{}", self.places.text(other), 1),
            )
            for number, other, measure in others[first].tolist()
        ]
        yield problem_of(kind, positions[others["number"]], cases)


def _share_of(measure: float) -> str:
    return f"{100 * measure:.0f} % like {{}}"


def _meaning_of(measure: float) -> str:
    return f"means {{}}, by a cosine of {measure:.2f}"


def _leak_of(measure: float) -> str:
    """Of a share, or of the characters of a run."""
    if measure <= 1:
        return f"{_share_of(measure)}, which is held out"
    return f"{measure:.0f} characters in a row of {{}}, which is held out"


def is_held_out(row: Seen) -> bool:
    """Whether the row is judged on, not learnt from."""
    return row.split in ("validation", "test")


def keys_of(row: Seen) -> tuple[str, str, str]:
    """What makes two questions ask the same, what makes them equal, and what makes answers so.

    Tools that may be called, and calls made before the answer, are part of what is asked.
    """
    example = row.example
    if isinstance(example, Text):
        return folded(example.text), example.text, ""
    if isinstance(example, Labelled):
        labels = "\0".join(sorted(folded(label) for label in example.labels))
        return prompt_key(example), "\0".join(example.texts), labels
    context = _context(example)
    said = "\0".join(f"{message.role}:{message.content}" for message in example.prompt) + context
    answer = row.answer.strip() if isinstance(example, Chat) else canonical(example)
    return prompt_key(example) + context, said, answer + context


def _context(example: Example) -> str:
    """Tools and calls before the answer, as text; nothing where there are none."""
    chat = example.chat if isinstance(example, Rated) else example
    tools = chat.tools if isinstance(chat, Chat | Preference) else ()
    calls = [[call.name, call.arguments] for m in example.prompt for call in m.tool_calls]
    return json.dumps([tools, calls], sort_keys=True) if tools or calls else ""


def is_scored(example: Example) -> bool:
    """Whether two texts have a number that says how alike they are."""
    return isinstance(example, Pair) and example.score is not None


def _hash(text: str) -> int:
    """Among 5 million texts two different ones have one hash but by a chance of 10**-6."""
    digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def _equal(rows: Records) -> tuple[Growing, Growing, Growing]:
    """Rows with an earlier one they equal, one they contradict, and a held-out one they ask as."""
    repeated, conflicting, leaked = (Growing(OTHERS) for _ in range(3))
    for members in _same(rows["question"]):
        some = rows[members]
        held = members[some["held"]]
        first: dict[tuple[int, int, bool], int] = {}
        columns = (some[name].tolist() for name in ("exact", "answer", "held"))
        for number, *own, is_held in zip(members.tolist(), *columns, strict=True):
            earlier = first.setdefault((*own, is_held), number)
            if earlier != number:
                _add(repeated, number, earlier)
            if not is_held and len(held):
                _add(leaked, number, int(held[0]))
        if not _add_conflicts(conflicting, rows, members, "words"):
            # Answers of the same words may still differ where it matters, as "-d" and "-D".
            for equal in _same(some["exact"]):
                _add_conflicts(conflicting, rows, members[equal], "answer")
    return repeated, conflicting, leaked


def _add_conflicts(found: Growing, rows: Records, members: Numbers, by: str) -> bool:
    """Rows of one question with another that answers otherwise; whether there are any."""
    given = rows[by][members].tolist()
    answers = dict(zip(given, members.tolist(), strict=True))
    if len(answers) < 2 or not rows["only"][members].all():
        return False
    (a, other), (_, another) = [*answers.items()][:2]
    for number, answer in zip(members.tolist(), given, strict=True):
        _add(found, number, another if answer == a else other)
    return True


def _add(found: Growing, number: int, other: int, measure: float = 0.0) -> None:
    found.extend(np.array([(number, other, measure)], OTHERS))


def _same(values: npt.NDArray[Any]) -> Iterator[Numbers]:
    """Numbers of rows with one value, in order, where there are several."""
    order = np.argsort(values, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(values[order]) != 0, True)) + 1
    starts = np.append(0, ends[:-1])
    for i in np.flatnonzero(ends - starts > 1):
        yield order[starts[i] : ends[i]]
