"""Rows that say nearly the same: MinHash with bands (Broder 1997; Leskovec et al. 2020, 3.4).

A text is the set of its pieces of five characters; alike are two texts that share so large a part
of all their pieces (Jaccard). Candidates are rows that agree in a band of minima; each is then
measured exactly, so what is found is alike, and what is alike at the threshold is missed in less
than one of 150 cases.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from luthier.curation.looking import Growing, Spool

PIECE = 5
BANDS, BAND_ROWS = 14, 5
"""A pair of similarity s shares a band by 1 - (1 - s^5)^14: 0.996 at 0.8, 0.36 at 0.5."""
REPRESENTATIVES = 8
"""Rows of a band that another is measured against: many equal beginnings cost no more."""
THRESHOLD = 0.8
MARGIN = 0.16
"""Three standard deviations of a similarity that is taken from a sketch of 70 minima."""
PAIRS, AT_ONCE = 2**16, 2**11
"""Pairs whose sketches are compared at once, and of these that are measured at once."""
BYTES_AT_ONCE = 2**22
"""Of texts that are measured together."""
BLOCK = 256
"""Texts whose pieces are hashed together, so that they stay in a processor's cache."""
REMEMBERED, SHORT = 2**12, 2**13
"""Texts whose pieces are remembered, and bytes of a text that may be."""
SEED = 20

Hashes = npt.NDArray[np.uint32]
Groups = npt.NDArray[np.int64]
Sketches = npt.NDArray[np.uint8]


def find_alike(spool: Spool, threshold: float = THRESHOLD) -> Groups:
    """Group of each text: the number of the first that it is like, directly or by others.

    A text that is like no other is its own group.
    """
    bands = np.empty((BANDS, len(spool)), np.uint32)
    sketches = np.empty((len(spool), BANDS * BAND_ROWS), np.uint8)
    for first, texts in spool.blocks(BLOCK):
        minima = minima_of(texts)
        bands[:, first : first + len(texts)] = bands_of(minima)
        sketches[first : first + len(texts)] = minima.T
    joining = _Joining(spool, sketches, threshold)
    for column in range(BANDS):
        joining.join_band(bands[column])
    return roots(joining.parents)


class _Joining:
    """Joins rows that are alike, band after band."""

    def __init__(self, spool: Spool, sketches: Sketches, threshold: float) -> None:
        self._spool, self._sketches, self._threshold = spool, sketches, threshold
        self.parents = np.arange(len(spool), dtype=np.int64)
        self._unlike = Growing(np.int64)
        """Pairs that were measured in earlier bands, as one number each."""

    def join_band(self, column: Hashes) -> None:
        """Join rows that are alike, among those that have one value in the band.

        All are compared with the first of them, those that are unlike it with the next, and so on.
        """
        rows = np.argsort(column, kind="stable")
        rows, values = _not_alone(rows, column[rows])
        known = np.sort(self._unlike.array)
        for _ in range(REPRESENTATIVES):
            if not len(rows):
                return
            is_first = np.append(True, values[1:] != values[:-1])
            first = rows[np.flatnonzero(is_first)[np.cumsum(is_first) - 1]]
            one, other, values = first[~is_first], rows[~is_first], values[~is_first]
            is_alike = np.zeros(len(one), dtype=bool)
            for start in range(0, len(one), PAIRS):
                part = slice(start, start + PAIRS)
                is_alike[part] = self._joined(one[part], other[part], known)
            rows, values = _not_alone(other[~is_alike], values[~is_alike])

    def _joined(self, one: Groups, other: Groups, known: Groups) -> npt.NDArray[np.bool_]:
        """Which pairs are alike, or are together by others; they are joined."""
        is_alike = np.zeros(len(one), dtype=bool)
        least = (self._threshold - MARGIN) * self._sketches.shape[1]
        equal = self._sketches[one] == self._sketches[other]
        keys = one * len(self.parents) + other
        places = np.minimum(np.searchsorted(known, keys), max(0, len(known) - 1))
        is_known = known[places] == keys if len(known) else np.zeros(len(keys), dtype=bool)
        waiting = np.flatnonzero((equal.sum(axis=1) >= least) & ~is_known)
        for start in range(0, len(waiting), AT_ONCE):
            some = waiting[start : start + AT_ONCE]
            apart = [
                i for i in some.tolist()
                if root_of(self.parents, int(one[i])) != root_of(self.parents, int(other[i]))
            ]  # fmt: skip
            is_alike[some] = True
            found = similarities(self._spool, one[apart], other[apart]) >= self._threshold
            is_alike[apart] = found
            self._unlike.extend(keys[apart][~found])
            for i in np.asarray(apart, np.int64)[found].tolist():
                join(self.parents, int(one[i]), int(other[i]))
        return is_alike


def _not_alone(rows: Groups, values: Hashes) -> tuple[Groups, Hashes]:
    """Of rows in the order of their values, those whose value another has too."""
    same = values[1:] == values[:-1]
    kept = np.append(same, False) | np.append(False, same)
    return rows[kept[: len(rows)]], values[kept[: len(rows)]]


def join_groups(one: Groups, other: Groups) -> Groups:
    """Rows that are together in either are together; groups are numbered by their first row."""
    parents = np.arange(len(one), dtype=np.int64)
    for groups in (one, other):
        for row in np.flatnonzero(groups != np.arange(len(groups))):
            join(parents, int(groups[row]), int(row))
    return roots(parents)


def minima_of(texts: Sequence[bytes]) -> Hashes:
    """[permutations, n]: the least hash of each text's pieces, by every permutation."""
    hashes, bounds = _piece_hashes(texts)
    minima = np.empty((BANDS * BAND_ROWS, len(texts)), np.uint32)
    room = np.empty_like(hashes)
    for i, (multiplier, addend) in enumerate(zip(*_permutations(), strict=True)):
        np.multiply(hashes, multiplier, out=room)
        np.add(room, addend, out=room)
        minima[i] = np.minimum.reduceat(room, bounds)[::2]
    return _mixed(minima)


def bands_of(minima: Hashes) -> Hashes:
    """[BANDS, n]: two texts are equal in a band if they are in each of its minima."""
    found = np.zeros((BANDS, minima.shape[1]), np.uint32)
    for row in range(BAND_ROWS):
        found = _mixed(found * np.uint32(31) + minima[row::BAND_ROWS])
    return found


def piece_sets(spool: Spool) -> Callable[[int], Hashes]:
    """What gives the pieces of each text; those of the last few short ones are remembered."""

    def found(number: int) -> Hashes:
        return piece_set(spool.content(number))

    remembered = lru_cache(REMEMBERED)(found)
    return lambda number: (remembered if spool.size(number) <= SHORT else found)(number)


def piece_set(text: bytes) -> Hashes:
    """Hashes of all different pieces of a text, sorted."""
    hashes, bounds = _piece_hashes([text])
    return np.unique(hashes[bounds[0] : bounds[1]])


def similarity(one: Hashes, other: Hashes) -> float:
    """Jaccard similarity of two sorted sets."""
    if not len(one) or not len(other):
        return 0.0
    places = np.minimum(np.searchsorted(other, one), len(other) - 1)
    shared = int((other[places] == one).sum())
    return shared / (len(one) + len(other) - shared)


def similarities(spool: Spool, one: Groups, other: Groups) -> npt.NDArray[np.float64]:
    """`similarity` of each pair of texts: many at once cost less each."""
    numbers, places = np.unique(np.concatenate([one, other]), return_inverse=True)
    if len(one) > 1 and sum(map(spool.size, numbers.tolist())) > BYTES_AT_ONCE:
        half = len(one) // 2
        parts = ((one[:half], other[:half]), (one[half:], other[half:]))
        return np.concatenate([similarities(spool, *part) for part in parts])
    hashes, bounds = _piece_hashes([spool.content(number) for number in numbers.tolist()])
    at, owners = _ranges(bounds[::2], bounds[1::2] - bounds[::2])
    pieces = np.unique(owners.astype(np.uint64) << np.uint64(32) | hashes[at])
    counts = np.bincount((pieces >> np.uint64(32)).astype(np.int64), minlength=len(numbers))
    starts = np.cumsum(counts) - counts
    first, second = places[: len(one)], places[len(one) :]
    at, pairs = _ranges(starts[first], counts[first])
    wanted = pieces[at] & np.uint64(2**32 - 1) | second[pairs].astype(np.uint64) << np.uint64(32)
    found = np.minimum(np.searchsorted(pieces, wanted), max(0, len(pieces) - 1))
    shared = np.bincount(pairs[pieces[found] == wanted], minlength=len(one))
    together = counts[first] + counts[second] - shared
    return np.asarray(shared / np.maximum(1, together), np.float64)


def _ranges(starts: Groups, lengths: Groups) -> tuple[Groups, Groups]:
    """All numbers of ranges, one after another, and the range that each is of."""
    owners = np.repeat(np.arange(len(starts)), lengths)
    within = np.arange(len(owners)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return starts[owners] + within, owners


def _piece_hashes(texts: Sequence[bytes]) -> tuple[Hashes, npt.NDArray[np.int64]]:
    """Hashes of pieces of all texts, one at each byte, and where each text's begin and end.

    Short texts are as if zeros followed; between texts stand hashes that belong to none.
    """
    joined = b"".join(text + b"\0" * PIECE for text in texts)
    content = np.frombuffer(joined, np.uint8).astype(np.uint32)
    hashes = np.zeros(len(content), np.uint32)
    for i in range(PIECE):
        hashes[: len(content) - PIECE] *= np.uint32(0x01000193)
        hashes[: len(content) - PIECE] += content[i : len(content) - PIECE + i]
    lengths = np.fromiter((max(1, len(text)) for text in texts), np.int64, len(texts))
    starts = np.cumsum([0, *(len(text) + PIECE for text in texts)])[:-1]
    bounds = np.stack([starts, starts + lengths], axis=1).ravel()
    return _mixed(hashes), bounds


def _mixed(values: Hashes) -> Hashes:
    """Every bit of each depends on all of it (the end of MurmurHash3, Appleby 2016)."""
    values = values ^ (values >> np.uint32(16))
    values = values * np.uint32(0x85EBCA6B)
    values = values ^ (values >> np.uint32(13))
    values = values * np.uint32(0xC2B2AE35)
    return values ^ (values >> np.uint32(16))


@lru_cache(1)
def _permutations() -> tuple[Hashes, Hashes]:
    generator = np.random.default_rng(SEED)
    size = BANDS * BAND_ROWS
    multipliers = generator.integers(0, 2**31, size, dtype=np.uint32) * np.uint32(2) + np.uint32(1)
    return multipliers, generator.integers(0, 2**32, size, dtype=np.uint32)


def root_of(parents: Groups, row: int) -> int:
    """The first of those that a row is joined with."""
    while (parent := int(parents[row])) != row:
        parents[row] = parents[parent]
        row = parent
    return row


def join(parents: Groups, one: int, other: int) -> None:
    """Put what two rows are joined with together."""
    low, high = sorted((root_of(parents, one), root_of(parents, other)))
    parents[high] = low


def roots(parents: Groups) -> npt.NDArray[np.int64]:
    """The group of every row; each points at an earlier one, so one pass after another ends."""
    while True:
        above = parents[parents]
        if np.array_equal(above, parents):
            return parents
        parents = above
