"""Held-out rows that stand in training rows, in part or nearly: long runs of equal text.

Pieces of 40 characters of held-out questions are looked for in training rows. One in eight of all
pieces is looked at, the same ones everywhere (by their hash), so a common run of 100 characters is
missed in less than one of 3,000 cases. What many rows share is a template, and no leak. Of rows
with a common piece the longest common run is measured exactly.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from luthier.curation.looking import Growing, Spool

PIECE = 40
SAMPLED = np.uint64(7)
"""Pieces whose hash has these bits unset are looked at."""
TEMPLATE = 10
"""Rows from which a piece that all hold is a template."""
LEAST_SHARE = 0.5
"""Of a held-out question that a run must cover."""
TABLE_BITS = 24
FACTOR = 0x9E3779B97F4A7C15

HITS = np.dtype([("piece", "<u4"), ("row", "<i8")])
"""Number of a piece, and a training row that holds it."""

Hashes = npt.NDArray[np.uint64]
Numbers = npt.NDArray[np.int64]


def find_runs(
    spool: Spool, held_out: Numbers, taught: npt.NDArray[np.bool_]
) -> Iterator[tuple[int, int, str]]:
    """Held-out row, training row and the longest run they share; numbers are those of the spool."""
    held = _HeldPieces(spool, held_out)
    if not len(held.pieces):
        return
    counts, hits = _hits(spool, held, taught)
    is_template = counts > TEMPLATE
    # Rows that hold a piece side by side.
    order = np.argsort(hits["piece"], kind="stable")
    found, rows = hits["piece"][order], hits["row"][order]
    for row, own in held.by_row():
        rare = own[(counts[own] > 0) & ~is_template[own]]
        starts, ends = (np.searchsorted(found, rare, side) for side in ("left", "right"))
        others = Counter[int]()
        for start, end in zip(starts, ends, strict=True):
            others.update(rows[start:end].tolist())
        if not others:
            continue
        asked = spool.content(row)
        is_own = _own(asked, set(held.pieces[own[is_template[own]]].tolist()))
        for other, _ in others.most_common(TEMPLATE):
            start, end = longest_run(asked, spool.content(other))
            if is_own[start:end].sum() >= max(PIECE, LEAST_SHARE * is_own.sum()):
                yield row, other, asked[start:end].decode("utf-8", "ignore")


class _HeldPieces:
    """Sampled pieces of held-out texts, each once, and whose they are."""

    def __init__(self, spool: Spool, held_out: Numbers) -> None:
        found, owners = Growing(np.uint64), Growing(np.int64)
        for row in held_out.tolist():
            own = np.unique(sampled_pieces(spool.content(row)))
            found.extend(own)
            owners.extend(np.full(len(own), row))
        self.pieces: Hashes
        self.pieces, self._numbers = np.unique(found.array, return_inverse=True)
        self._owners = owners.array

    def by_row(self) -> Iterator[tuple[int, Numbers]]:
        """Each row that has any, and the numbers of its pieces."""
        starts = np.flatnonzero(np.append(True, np.diff(self._owners) != 0))
        for start, end in zip(starts, [*starts[1:], len(self._owners)], strict=True):
            yield int(self._owners[start]), self._numbers[start:end]


def _hits(
    spool: Spool, held: _HeldPieces, taught: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.uint32], npt.NDArray[Any]]:
    """How many training rows hold each piece, and the first few that do."""
    table = np.zeros(2**TABLE_BITS, dtype=bool)
    table[held.pieces >> np.uint64(64 - TABLE_BITS)] = True
    counts = np.zeros(len(held.pieces), np.uint32)
    hits = Growing(HITS)
    for number, content in _taught_texts(spool, taught):
        own = sampled_pieces(content)
        own = np.unique(own[table[own >> np.uint64(64 - TABLE_BITS)]])
        places = np.minimum(np.searchsorted(held.pieces, own), len(held.pieces) - 1)
        places = places[held.pieces[places] == own]
        if not len(places):
            continue
        counts[places] += 1
        few = places[counts[places] <= TEMPLATE]
        found = np.empty(len(few), HITS)
        found["piece"], found["row"] = few, number
        hits.extend(found)
    return counts, hits.array


def _taught_texts(spool: Spool, taught: npt.NDArray[np.bool_]) -> Iterator[tuple[int, bytes]]:
    for first, texts in spool.blocks():
        for number, content in enumerate(texts, first):
            if taught[number] and len(content) >= PIECE:
                yield number, content


def sampled_pieces(content: bytes) -> Hashes:
    """Hashes of one in eight of all pieces of a text, always the same ones."""
    if len(content) < PIECE:
        return np.empty(0, np.uint64)
    hashes = _prefix_hashes(content)
    found: Hashes = hashes[(hashes >> np.uint64(20)) & SAMPLED == 0]
    return found


def _prefix_hashes(content: bytes) -> Hashes:
    """A hash of every piece: polynomials over windows that double, 8 then 16 then 32 and 40."""
    values = np.frombuffer(content, np.uint8).astype(np.uint64)
    factor = FACTOR
    for width in (1, 2, 4):
        values = values[:-width] * np.uint64(factor) + values[width:]
        factor = factor * factor % 2**64
    eight = values
    for width in (8, 16):
        values = values[:-width] * np.uint64(factor) + values[width:]
        factor = factor * factor % 2**64
    joined = values[:-8] * np.uint64(FACTOR | 1) + eight[32:]
    joined ^= joined >> np.uint64(29)
    joined *= np.uint64(0xBF58476D1CE4E5B9)
    mixed: Hashes = joined ^ (joined >> np.uint64(32))
    return mixed


def _own(content: bytes, templates: set[int]) -> npt.NDArray[np.bool_]:
    """Which bytes of a text stand in no template."""
    found = np.ones(len(content), dtype=bool)
    for piece, start in _sampled_places(content).items():
        if piece in templates:
            found[start : start + PIECE] = False
    return found


def longest_run(one: bytes, other: bytes) -> tuple[int, int]:
    """Where in the first text the longest run is that both hold, of those around sampled pieces."""
    mine, theirs = (_sampled_places(content) for content in (one, other))
    best, end = (0, 0), -1
    for piece, start in sorted(mine.items(), key=lambda item: item[1]):
        place = theirs.get(piece)
        # What lies in the run before is part of it.
        if place is None or start + PIECE <= end:
            continue
        before = _common(one[:start][::-1], other[:place][::-1])
        after = _common(one[start:], other[place:])
        end = start + after
        best = max(best, (start - before, end), key=lambda run: run[1] - run[0])
    return best


def _common(one: bytes, other: bytes) -> int:
    """Bytes that two begin with alike."""
    size = min(len(one), len(other))
    if one[:size] == other[:size]:
        return size
    low, high = 0, size
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if one[:middle] == other[:middle] else (low, middle)
    return low


def _sampled_places(content: bytes) -> dict[int, int]:
    """Sampled piece -> where it first stands."""
    if len(content) < PIECE:
        return {}
    hashes = _prefix_hashes(content)
    places = np.flatnonzero((hashes >> np.uint64(20)) & SAMPLED == 0)
    return dict(zip(hashes[places][::-1].tolist(), places[::-1].tolist(), strict=True))
