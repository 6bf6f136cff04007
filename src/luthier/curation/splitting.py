"""Rows become training, validation and test rows, so that no test row is given away.

Rows that ask nearly the same are one group, and a group is never divided. Which split a group falls
into depends on what it says and on nothing else: added rows move no others. Rows that have a split
keep it; where there are test rows, they stay the test: of new rows, those that ask nearly what a
held-out row asks are left out.
"""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import numpy as np
import numpy.typing as npt

from luthier.curation.looking import Seen, Spool, VersionSource, folded, seen
from luthier.curation.near import THRESHOLD, find_alike, join_groups
from luthier.data import Finding, Labelled, Split, refuse_errors
from luthier.errors import ConfigError
from luthier.runs import Datasets, NewRow, Origin, Version

WAYS = ("hash", "label", "group", "time")
ISO = re.compile(r"\d{4}-\d\d(?:-\d\d)?(?:[T ].*)?$")
Numbers = npt.NDArray[np.int64]


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

    def __post_init__(self) -> None:
        for name, value in (("test", self.test), ("validation", self.validation)):
            if not 0 <= value < 1 or self.test + self.validation >= 1:
                raise ConfigError(f"is {value}", where=name, accepted="shares below 1 in all")
        if not 0.3 <= self.alike <= 1:
            raise ConfigError(f"is {self.alike}", where="alike", accepted="0.3 to 1")
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
    empty: tuple[str, ...]
    """Splits that were asked for, and that no row fell into."""


@dataclass
class _Rows:
    """What is known of rows by position."""

    positions: list[int] = field(default_factory=list)
    splits: list[Split | None] = field(default_factory=list)
    keys: list[bytes] = field(default_factory=list)
    """Hash of what each asks."""
    values: list[str] = field(default_factory=list)
    """Of the column, or the labels."""


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
    with Spool() as spool:
        rows = _looked_at(VersionSource(content, version.reference), shares, spool, observe)
        groups = _groups(rows, spool, shares)
    splits = _parted(rows, groups, shares)
    chosen = dict(zip(rows.positions, splits, strict=True))
    left_out = splits.count(None)

    def parted() -> Iterator[NewRow]:
        for kept in content.rows():
            split = chosen[kept.position - 1]
            if split is not None:
                yield NewRow(kept.fields, split, kept.origin)

    named = f"{shares.by}:{shares.column}" if shares.column else shares.by
    details: dict[str, Any] = {
        "by": named, "test": shares.test, "validation": shares.validation, "alike": shares.alike,
        "left out": left_out,
    }  # fmt: skip
    new, is_new = datasets.add(version.name, parted(), Origin("split", version.reference, details))
    wanted = {"test": shares.test, "validation": shares.validation, "train": 1.0}
    empty = tuple(name for name, share in wanted.items() if share and not new.splits.get(name))
    return Parted(new, is_new, left_out, len(np.unique(groups)), empty)


def _looked_at(
    source: VersionSource, shares: Shares, spool: Spool, observe: Callable[[int], None]
) -> _Rows:
    findings: list[Finding] = []
    rows = _Rows()
    for block in seen(source, findings.append):
        texts = [folded(row.question or row.answer) for row in block]
        spool.add(texts)
        for row, text in zip(block, texts, strict=True):
            rows.positions.append(row.position)
            rows.splits.append(row.split)
            rows.keys.append(sha256(text.encode("utf-8", "surrogatepass")).digest()[:8])
            rows.values.append(_value(row, shares))
        observe(len(rows.positions))
    refuse_errors(findings)
    return rows


def _value(row: Seen, shares: Shares) -> str:
    """What of the row its split depends on, besides what it asks."""
    if shares.by == "label":
        return "\0".join(row.example.labels) if isinstance(row.example, Labelled) else ""
    if not shares.column:
        return ""
    value = row.example.slices.get(shares.column)
    if value is None:
        known = ", ".join(sorted(row.example.slices)) or "none: rows have no other columns"
        raise ConfigError(f"has no {shares.column}", where=row.place, accepted=known)
    if shares.by == "time" and not ISO.match(value) and _number(value) is None:
        accepted = "a number, or a date as ISO 8601 writes it: 2026-11-22"
        raise ConfigError(f"{shares.column} is {value!r}", where=row.place, accepted=accepted)
    return value


def _groups(rows: _Rows, spool: Spool, shares: Shares) -> Numbers:
    """Group of each row, numbered by its first."""
    equal = _first_of(rows.keys)
    groups = equal if shares.alike == 1 else join_groups(find_alike(spool, shares.alike), equal)
    if shares.by == "group":
        groups = join_groups(groups, _first_of(rows.values))
    return groups


def _first_of(values: Sequence[Any]) -> Numbers:
    first: dict[Any, int] = {}
    return np.array([first.setdefault(value, i) for i, value in enumerate(values)], np.int64)


def _parted(rows: _Rows, groups: Numbers, shares: Shares) -> list[Split | None]:
    """Split of each row; None for those that are left out."""
    members: dict[int, list[int]] = defaultdict(list)
    for row, group in enumerate(groups.tolist()):
        members[group].append(row)
    splits: list[Split | None] = list(rows.splits)
    is_frozen = "test" in splits
    waiting = []
    for group, own in members.items():
        held: set[Split | None] = {splits[row] for row in own} & {"test", "validation"}
        if not any(splits[row] for row in own):
            waiting.append(group)
            continue
        for row in own:
            # Beside training rows, new ones are learnt from; beside held-out ones neither.
            if splits[row] is None and not held:
                splits[row] = "train"
    wanted = {"test": 0.0 if is_frozen else shares.test, "validation": shares.validation}
    if is_frozen and "validation" in splits:
        wanted["validation"] = 0.0
    for split, chosen in _chosen(waiting, members, rows, shares, wanted):
        for group in chosen:
            for row in members[group]:
                splits[row] = split
    return splits


def _chosen(
    waiting: Iterable[int],
    members: dict[int, list[int]],
    rows: _Rows,
    shares: Shares,
    wanted: dict[str, float],
) -> Iterator[tuple[Split, list[int]]]:
    """Groups of each split."""
    strata: dict[str, list[int]] = defaultdict(list)
    for group in waiting:
        # A group of several labels counts as one of its most frequent.
        labels = Counter(rows.values[row] for row in members[group])
        strata[labels.most_common(1)[0][0] if shares.by == "label" else ""].append(group)
    positions = {group: _position(rows, own) for group, own in members.items()}
    owed = {"test": 0.0, "validation": 0.0}
    for _, own in sorted(strata.items()):
        if shares.by in ("hash", "group"):
            yield from _by_position(own, positions, wanted)
        elif shares.by == "label":
            yield from _in_order(sorted(own, key=positions.__getitem__), members, wanted, owed)
        else:
            # Its earliest row says where a group stands; the latest groups are the test.
            times = {g: min(_time(rows.values[row]) for row in members[g]) for g in own}
            latest = sorted(own, key=lambda g: (times[g], positions[g]), reverse=True)
            yield from _in_order(latest, members, wanted, owed)


def _position(rows: _Rows, own: Sequence[int]) -> float:
    """A number in [0, 1) that depends on what the group asks alone."""
    digest = sha256(b"split\0" + min(rows.keys[row] for row in own)).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def _by_position(
    groups: Iterable[int], positions: dict[int, float], wanted: dict[str, float]
) -> Iterator[tuple[Split, list[int]]]:
    found: dict[Split, list[int]] = {"test": [], "validation": [], "train": []}
    for group in groups:
        place = positions[group]
        is_test, is_held = place < wanted["test"], place < wanted["test"] + wanted["validation"]
        found["test" if is_test else "validation" if is_held else "train"].append(group)
    yield from found.items()


def _in_order(
    groups: Sequence[int],
    members: dict[int, list[int]],
    wanted: dict[str, float],
    owed: dict[str, float],
) -> Iterator[tuple[Split, list[int]]]:
    """The first groups are the test, the next validation, until each has its share of the rows.

    What is too small to be divided is owed, and paid by the groups of the next call.
    """
    total = sum(len(members[group]) for group in groups)
    found: dict[Split, list[int]] = {"test": [], "validation": [], "train": []}
    waiting: list[Split] = ["test", "validation"]
    for split in waiting:
        owed[split] += wanted[split] * total
    for group in groups:
        size = len(members[group])
        while waiting and owed[waiting[0]] < size / 2:
            waiting.pop(0)
        if waiting:
            owed[waiting[0]] -= size
        found[waiting[0] if waiting else "train"].append(group)
    yield from found.items()


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
