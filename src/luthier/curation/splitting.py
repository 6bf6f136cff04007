"""Rows become training, validation and test rows, so that no test row is given away.

Rows that ask nearly the same are one group, and a group is never divided. Which split a group falls
into depends on what it says and on nothing else: added rows move no others. Rows that have a split
keep it; where there are test rows, they stay the test: of new rows, those that ask nearly what a
held-out row asks are left out.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import numpy as np
import numpy.typing as npt

from luthier.curation.looking import Growing, Seen, Spool, VersionSource, folded, seen
from luthier.curation.meaning import MEANING, Vectors, groups_by_meaning
from luthier.curation.near import THRESHOLD, find_alike, join_groups
from luthier.data import Finding, Labelled, Split, refuse_errors
from luthier.errors import ConfigError
from luthier.evaluation import Embed
from luthier.runs import Datasets, NewRow, Origin, Version

WAYS = ("hash", "label", "group", "time")
ISO = re.compile(r"\d{4}-\d\d(?:-\d\d)?(?:[T ].*)?$")
SPLITS: tuple[Split | None, ...] = (None, "train", "validation", "test")
LEFT_OUT = 255
HELD_OUT: tuple[Split, ...] = ("test", "validation")
IN_ORDER: tuple[Split, ...] = (*HELD_OUT, "train")
Numbers = npt.NDArray[np.int64]
Times = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Shares:
    """How rows are parted."""

    test: float = 0.1
    """Of all rows; none where there are test rows already."""
    validation: float = 0.1
    by: str = "hash"
    """hash of what is asked; label: the same shares of each; group: rows with one value of the
    column stay together; time: the last ones by the column are the test."""
    column: str = ""
    alike: float = THRESHOLD
    """Share of their pieces that questions of a group have in common; 1 for equal ones."""
    embedder: str = ""
    """A model of texts: questions that mean nearly the same are one group too; see `embed`."""
    embed: Embed | None = None
    meaning: float = MEANING
    """Cosine from which two questions mean nearly the same."""

    def __post_init__(self) -> None:
        for name, value in (("test", self.test), ("validation", self.validation)):
            if not 0 <= value < 1 or self.test + self.validation >= 1:
                raise ConfigError(f"is {value}", where=name, accepted="shares below 1 in all")
        for name, value in (("alike", self.alike), ("meaning", self.meaning)):
            if not 0.3 <= value <= 1:
                raise ConfigError(f"is {value}", where=name, accepted="0.3 to 1")
        if self.by not in WAYS or (self.by in ("group", "time")) != bool(self.column):
            named = f"{self.by}:{self.column}" if self.column else self.by
            raise ConfigError(
                f"is {named!r}", where="by", accepted="hash, label, group:COLUMN or time:COLUMN"
            )


@dataclass(frozen=True, slots=True)
class Parted:
    """What came of it."""

    version: Version
    is_new: bool
    num_left_out: int
    """New rows that ask nearly what held-out rows ask."""
    num_groups: int
    largest: int
    """Rows of the largest group."""
    empty: tuple[str, ...]
    """Splits that were asked for, and that no row fell into."""


class _Rows:
    """What is known of rows, in the order they were seen."""

    def __init__(self) -> None:
        self.positions, self.splits = Growing(np.int64), Growing(np.uint8)
        self.keys = Growing(np.uint64)
        """Hash of what each asks."""
        self.values = Growing(np.int64)
        """Number of each row's value of the column, or of its labels."""
        self.names: dict[str, int] = {}
        """Value -> its number."""

    def add(self, rows: Sequence[Seen], texts: Sequence[str], values: Iterable[str]) -> None:
        """Take in some more."""
        self.positions.extend([row.position for row in rows])
        self.splits.extend([SPLITS.index(row.split) for row in rows])
        self.keys.extend([_hash(text.encode("utf-8", "surrogatepass")) for text in texts])
        self.values.extend([self.names.setdefault(value, len(self.names)) for value in values])


@dataclass(frozen=True)
class _Asked:
    """What rows ask."""

    spool: Spool
    """White space and case aside."""
    vectors: Vectors | None


@dataclass(frozen=True)
class _Groups:
    """Rows by what they ask: those of one group are never divided."""

    order: Numbers
    """Rows, those of one group side by side."""
    starts: Numbers
    """Where in the order each group begins."""
    number: Numbers
    """[rows]: the group of each row."""

    @classmethod
    def of(cls, first: Numbers) -> "_Groups":
        """From the first row of each row's group."""
        order = np.argsort(first, kind="stable")
        is_new = np.append(True, np.diff(first[order]) != 0)[: len(first)]
        number = np.empty(len(first), np.int64)
        number[order] = np.cumsum(is_new) - 1
        return cls(order, np.flatnonzero(is_new), number)

    @property
    def sizes(self) -> Numbers:
        """Rows of each."""
        return np.diff(np.append(self.starts, len(self.order)))

    def least(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The least value of each group's rows."""
        found: npt.NDArray[Any] = np.minimum.reduceat(values[self.order], self.starts)
        return found

    def has(self, is_so: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """Whether any row of each group is so."""
        found: npt.NDArray[np.bool_] = np.logical_or.reduceat(is_so[self.order], self.starts)
        return found

    def usual(self, values: Numbers) -> Numbers:
        """The most frequent value of each group's rows; the first of equally frequent ones."""
        found = values[self.order[self.starts]]
        for group in np.flatnonzero(self.sizes > 1):
            start = self.starts[group]
            own = values[self.order[start : start + self.sizes[group]]]
            found[group] = Counter(own.tolist()).most_common(1)[0][0]
        return found


def split_version(
    datasets: Datasets,
    version: Version,
    shares: Shares = Shares(),
    observe: Callable[[int], None] = lambda number: None,
) -> Parted:
    """Part the rows of a version, and keep the result as the newest.

    Raises ConfigError for a column that rows have not, DataError for rows that are none.
    """
    content = datasets.content(version)
    with ExitStack() as held:
        vectors = held.enter_context(Vectors(shares.embed)) if shares.embed else None
        asked = _Asked(held.enter_context(Spool()), vectors)
        rows = _looked_at(VersionSource(content, version.reference), shares, asked, observe)
        groups = _groups(rows, asked, shares)
    splits = _parted(rows, groups, shares)
    chosen = np.full(version.num_rows, LEFT_OUT, np.uint8)
    chosen[rows.positions.array] = splits
    left_out = int((splits == LEFT_OUT).sum())

    def parted() -> Iterator[NewRow]:
        for kept in content.rows():
            split = chosen[kept.position - 1]
            if split != LEFT_OUT:
                yield NewRow(kept.fields, SPLITS[split], kept.origin)

    named = f"{shares.by}:{shares.column}" if shares.column else shares.by
    details: dict[str, Any] = {
        "by": named, "test": shares.test, "validation": shares.validation, "alike": shares.alike,
        "left out": left_out,
    }  # fmt: skip
    if shares.embed:
        details |= {"embedder": shares.embedder, "meaning": shares.meaning}
    new, is_new = datasets.add(version.name, parted(), Origin("split", version.reference, details))
    wanted = {"test": shares.test, "validation": shares.validation, "train": 1.0}
    empty = tuple(name for name, share in wanted.items() if share and not new.splits.get(name))
    largest = int(groups.sizes.max(initial=0))
    return Parted(new, is_new, left_out, len(groups.starts), largest, empty)


def _looked_at(
    source: VersionSource, shares: Shares, asked: _Asked, observe: Callable[[int], None]
) -> _Rows:
    findings: list[Finding] = []
    rows = _Rows()
    for block in seen(source, findings.append):
        texts = [folded(row.question or row.answer) for row in block]
        asked.spool.add(texts)
        if asked.vectors is not None:
            asked.vectors.add([row.question or row.answer for row in block])
        rows.add(block, texts, [_value(row, shares) for row in block])
        observe(len(rows.positions))
    refuse_errors(findings)
    return rows


def _value(row: Seen, shares: Shares) -> str:
    """What of the row its split depends on, besides what it asks."""
    if shares.by == "label":
        return "\0".join(row.example.labels) if isinstance(row.example, Labelled) else ""
    if not shares.column:
        return ""
    columns = {name: str(value) for name, value in row.fields.items()
               if isinstance(value, str | int | float)}  # fmt: skip
    value = columns.get(shares.column)
    if value is None:
        known = ", ".join(sorted(columns)) or "none: rows have no plain columns"
        raise ConfigError(f"has no {shares.column}", where=row.place, accepted=known)
    if shares.by == "time" and not ISO.match(value) and _number(value) is None:
        accepted = "a number, or a date as ISO 8601 writes it: 2026-11-22"
        raise ConfigError(f"{shares.column} is {value!r}", where=row.place, accepted=accepted)
    return value


def _groups(rows: _Rows, asked: _Asked, shares: Shares) -> _Groups:
    first = _first_of(rows.keys.array)
    if shares.alike < 1:
        first = join_groups(find_alike(asked.spool, shares.alike), first)
    if asked.vectors is not None:
        first = join_groups(groups_by_meaning(asked.vectors, shares.meaning), first)
    if shares.by == "group":
        first = join_groups(first, _first_of(rows.values.array))
    return _Groups.of(first)


def _first_of(values: npt.NDArray[Any]) -> Numbers:
    """For each row the first that has the same value."""
    _, first, inverse = np.unique(values, return_index=True, return_inverse=True)
    found: Numbers = first[inverse].astype(np.int64)
    return found


def _parted(rows: _Rows, groups: _Groups, shares: Shares) -> npt.NDArray[np.uint8]:
    """Split of each row, by number; LEFT_OUT for those that are left out."""
    splits: npt.NDArray[np.uint8] = rows.splits.array.copy()
    is_new = splits == SPLITS.index(None)
    is_held = np.isin(splits, [SPLITS.index(split) for split in HELD_OUT])
    # Beside training rows, new ones are learnt from; beside held-out ones neither.
    beside = np.where(groups.has(is_held), LEFT_OUT, SPLITS.index("train")).astype(np.uint8)
    kept = groups.has(~is_new)
    wanted = {"test": shares.test, "validation": shares.validation}
    present = {split for split in HELD_OUT if (splits == SPLITS.index(split)).any()}
    if "test" in present:
        wanted |= dict.fromkeys(present, 0.0)
    chosen = _chosen(np.flatnonzero(~kept), groups, rows, shares, wanted)
    splits[is_new] = np.where(kept, beside, chosen)[groups.number[is_new]]
    return splits


def _chosen(
    waiting: Numbers, groups: _Groups, rows: _Rows, shares: Shares, wanted: dict[str, float]
) -> npt.NDArray[np.uint8]:
    """Split of each group that waits for one."""
    found = np.zeros(len(groups.starts), np.uint8)
    places = np.array([_place(key) for key in groups.least(rows.keys.array).tolist()])
    if shares.by == "group":
        order = waiting[np.argsort(places[waiting], kind="stable")]
        for group, split in zip(order, _fitting(groups.sizes[order], wanted), strict=True):
            found[group] = SPLITS.index(split)
        return found
    if shares.by == "hash":
        ends = [wanted["test"], wanted["test"] + wanted["validation"]]
        numbers = np.array([SPLITS.index(split) for split in IN_ORDER], np.uint8)
        return numbers[np.searchsorted(ends, places, "right")]
    owed = {"test": 0.0, "validation": 0.0}
    for own in _strata(waiting, groups, rows, shares, places):
        for group, split in zip(own, _in_order(groups.sizes[own], wanted, owed), strict=True):
            found[group] = SPLITS.index(split)
    return found


def _strata(
    waiting: Numbers, groups: _Groups, rows: _Rows, shares: Shares, places: Times
) -> Iterator[Numbers]:
    """Groups that are parted by themselves, those that are held out first first."""
    if shares.by == "time":
        # Its earliest row says where a group stands; the latest groups are the test.
        ranks = np.empty(len(rows.names), np.int64)
        ranks[[rows.names[name] for name in sorted(rows.names, key=_time)]] = range(len(ranks))
        times = groups.least(ranks[rows.values.array])
        yield waiting[np.lexsort((places[waiting], times[waiting]))][::-1]
        return
    # A group of several labels counts as one of its most frequent.
    labels = groups.usual(rows.values.array)[waiting]
    for _, number in sorted(rows.names.items()):
        own = waiting[labels == number]
        if len(own):
            yield own[np.argsort(places[own], kind="stable")]


def _hash(content: bytes) -> int:
    return int.from_bytes(sha256(content).digest()[:8], "big")


def _place(key: int) -> float:
    """A number in [0, 1) that depends on what the group asks alone."""
    return _hash(b"split\0" + key.to_bytes(8, "big")) / 2**64


def _in_order(sizes: Numbers, wanted: dict[str, float], owed: dict[str, float]) -> Iterator[Split]:
    """The first groups are the test, the next validation, until each has its share of the rows.

    What is too small to be divided is owed, and paid by the groups of the next call.
    """
    waiting: list[Split] = [*HELD_OUT]
    for split in waiting:
        owed[split] += wanted[split] * int(sizes.sum())
    for size in sizes.tolist():
        while waiting and owed[waiting[0]] < size / 2:
            waiting.pop(0)
        if waiting:
            owed[waiting[0]] -= size
        yield waiting[0] if waiting else "train"


def _fitting(sizes: Numbers, wanted: dict[str, float]) -> Iterator[Split]:
    """Each group is held out where its split lacks half its rows or more: none much exceeds it."""
    splits: tuple[Split, ...] = HELD_OUT
    lacking = {split: wanted[split] * int(sizes.sum()) for split in splits}
    for size in sizes.tolist():
        chosen = next((split for split in splits if lacking[split] >= size / 2), None)
        if chosen:
            lacking[chosen] -= size
        yield chosen or "train"


def _time(value: str) -> tuple[int, float, str]:
    """Numbers by size; dates as ISO 8601 writes them are in order as texts."""
    number = _number(value)
    return (1, 0.0, value) if number is None else (0, number, "")


def _number(value: str) -> float | None:
    try:
        found = float(value)
    except ValueError:
        return None
    return found if math.isfinite(found) else None
