"""Held-out rows that stand in training rows, in part or nearly: long runs of equal text.

Pieces of 40 characters of held-out questions are looked for in training rows. One in eight of all
pieces is looked at, the same ones everywhere (by their hash), so a common run of 100 characters is
missed in less than one of 3,000 cases. What many rows share is a template, and no leak. Of rows
with a common piece the longest common run is measured exactly.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from luthier.curation.looking import Spool

PIECE = 40
SAMPLED = np.uint64(7)
"""Pieces whose hash has these bits unset are looked at."""
TEMPLATE = 10
"""Rows from which a piece that all hold is a template."""
LEAST_SHARE = 0.5
"""Of a held-out question that a run must cover."""
TABLE_BITS = 24
FACTOR = 0x9E3779B97F4A7C15

Hashes = npt.NDArray[np.uint64]


def find_runs(
    spool: Spool, held_out: Sequence[int], taught: npt.NDArray[np.bool_]
) -> Iterator[tuple[int, int, str]]:
    """Held-out row, training row and the longest run they share; numbers are those of the spool."""
    pieces, owners = _held_pieces(spool, held_out)
    if not len(pieces):
        return
    shared, counts = _shared(spool, pieces, owners, taught)
    for row in sorted(shared):
        rare = Counter[int]()
        for piece, others in shared[row].items():
            if counts[piece] <= TEMPLATE:
                rare.update(others)
        asked = spool.content(row)
        own = _own(asked, {piece for piece in shared[row] if counts[piece] > TEMPLATE})
        for other, _ in rare.most_common(TEMPLATE):
            start, end = longest_run(asked, spool.content(other))
            of_run = int(own[start:end].sum())
            if of_run >= max(PIECE, LEAST_SHARE * own.sum()):
                yield row, other, asked[start:end].decode("utf-8", "ignore")


def _held_pieces(spool: Spool, held_out: Sequence[int]) -> tuple[Hashes, npt.NDArray[np.int64]]:
    """Sampled pieces of held-out texts, sorted, and whose each is."""
    found, owners = [], []
    for row in held_out:
        own = np.unique(sampled_pieces(spool.content(row)))
        found.append(own)
        owners.append(np.full(len(own), row, np.int64))
    if not found:
        return np.empty(0, np.uint64), np.empty(0, np.int64)
    pieces, whose = np.concatenate(found), np.concatenate(owners)
    order = np.argsort(pieces, kind="stable")
    return pieces[order], whose[order]


def _shared(
    spool: Spool, pieces: Hashes, owners: npt.NDArray[np.int64], taught: npt.NDArray[np.bool_]
) -> tuple[dict[int, dict[int, list[int]]], Counter[int]]:
    """Held-out row -> piece -> training rows that hold it; and how many hold each."""
    table = np.zeros(2**TABLE_BITS, dtype=bool)
    table[pieces >> np.uint64(64 - TABLE_BITS)] = True
    shared: dict[int, dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
    counts = Counter[int]()
    for number, content in _taught_texts(spool, taught):
        own = sampled_pieces(content)
        own = np.unique(own[table[own >> np.uint64(64 - TABLE_BITS)]])
        starts = np.searchsorted(pieces, own)
        ends = np.searchsorted(pieces, own, side="right")
        for piece, start, end in zip(own.tolist(), starts, ends, strict=True):
            counts[piece] += start < end
            for owner in owners[start:end].tolist() if counts[piece] <= TEMPLATE + 1 else ():
                shared[owner][piece].append(number)
    return shared, counts


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
