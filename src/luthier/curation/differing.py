"""What one version has that another has not: rows added, removed, and edited.

Rows are compared by what they say, wherever they stand. A removed and an added one are an edit
where they have the same id of their own, or, having none, ask the same.
"""

from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from luthier.data import Place, Row, example_of, prompt_key
from luthier.runs import Content, KeptRow

MAX_MATCHED = 200_000
"""Changed rows up to which edits are looked for among them: they are held in memory."""


@dataclass(frozen=True, slots=True)
class Difference:
    """What changed between two versions; rows by their position from 0."""

    added: tuple[int, ...]
    """In the later version."""
    removed: tuple[int, ...]
    """In the earlier version."""
    edited: tuple[tuple[int, int], ...]
    """In the earlier version, and in the later one."""


def differ(before: Content, after: Content) -> Difference:
    """What the later version has otherwise. A row that is there twice is two rows."""
    removed = _missing(before, after)
    added = _missing(after, before)
    if not removed or not added or len(removed) + len(added) > MAX_MATCHED:
        return Difference(tuple(added), tuple(removed), ())
    waiting: dict[str, list[int]] = defaultdict(list)
    for position, row in zip(removed, before.some(removed), strict=True):
        waiting[_key(row)].append(position)
    edited = []
    for position, row in zip(added, after.some(added), strict=True):
        same = waiting.get(_key(row))
        if same:
            edited.append((same.pop(0), position))
    gone, new = ({pair[side] for pair in edited} for side in (0, 1))
    return Difference(
        tuple(p for p in added if p not in new),
        tuple(p for p in removed if p not in gone),
        tuple(edited),
    )


def _missing(content: Content, other: Content) -> list[int]:
    """Positions of rows that the other has not, or not as often; the later ones of equal rows."""
    ids, others = content.ids(), other.ids()
    # How many equal rows stand before each, so that the second of two needs two.
    first = np.searchsorted(ids["id"], ids["id"])
    nth = np.arange(len(ids)) - first
    start, end = (np.searchsorted(others["id"], ids["id"], side=side) for side in ("left", "right"))
    return sorted(int(p) for p in ids["position"][nth >= end - start])


def _key(row: KeptRow) -> str:
    own = row.fields.get("id")
    if isinstance(own, str | int):
        return f"id {own}"
    example = example_of(Row(Place(row.origin, row.position), row.fields))
    return f"prompt {prompt_key(example)}" if example else f"row {row.id}"
