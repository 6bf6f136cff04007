"""Rows that mean nearly the same, by the vectors of a model of texts: few pieces may be shared.

Every text is measured against every other, block by block, as products of matrices: 100,000 vectors
of 384 numbers take a minute on two cores, and ten times as many a hundred times as long. Between
runs of a model vectors differ by less than they are rounded by here (half precision, 0.0005).
"""

import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from luthier.curation.looking import Growing
from luthier.curation.near import join, roots
from luthier.evaluation import Embed

MEANING = 0.95
"""Cosine from which two texts mean nearly the same."""
AT_ONCE = 2048
"""Vectors that are measured against as many others at once."""

Numbers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
MEANT = np.dtype([("number", "<i8"), ("other", "<i8"), ("measure", "<f4")])
"""Texts, by number, each with another, and the cosine of the two."""


class Vectors:
    """Vectors of texts by number, of length 1, kept in a file that goes away with this."""

    def __init__(self, embed: Embed) -> None:
        self._embed = embed
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed on exit
        self._size = self._width = 0

    def __enter__(self) -> "Vectors":
        return self

    def __exit__(self, *raised: object) -> None:
        self._file.close()

    def __len__(self) -> int:
        return self._size

    def add(self, texts: Sequence[str]) -> None:
        """Make the vectors of some more texts."""
        found = unit_vectors(self._embed, texts)
        self._file.write(found.astype(np.float16).tobytes())
        self._width, self._size = found.shape[1], self._size + len(found)

    def of(self, numbers: Any) -> Floats:
        """[n, D]: vectors of texts with these numbers, or of a slice."""
        self._file.flush()
        shape = self._size, self._width
        kept = np.memmap(self._file, np.float16, "r", shape=shape)
        found: Floats = kept[numbers].astype(np.float32)
        return found


def unit_vectors(embed: Embed, texts: Sequence[str]) -> Floats:
    """[n, D]: vectors of length 1, or of nothing where a model has none for a text."""
    found = np.asarray(embed(texts), np.float32)
    lengths = np.linalg.norm(found, axis=1, keepdims=True)
    vectors: Floats = np.divide(found, lengths, out=np.zeros_like(found), where=lengths > 0)
    return vectors


def find_meant(vectors: Vectors, members: Numbers, threshold: float) -> npt.NDArray[Any]:
    """Members that mean what an earlier one does, which is kept itself: [n] of `MEANT`.

    Each is measured against those that are kept alone, so that no chain of small steps joins two.
    """
    found, kept = Growing(MEANT), Growing(np.int64)
    for start in range(0, len(members), AT_ONCE):
        own = members[start : start + AT_ONCE]
        part = vectors.of(own)
        best, others = _nearest(vectors, part, kept.array)
        among = part @ part.T
        is_kept = np.zeros(len(own), bool)
        for i in range(len(own)):
            near = np.where(is_kept[:i], among[i, :i], -1.0)
            if i and near.max() > best[i]:
                best[i], others[i] = near.max(), own[near.argmax()]
            is_kept[i] = best[i] < threshold
        told = np.flatnonzero(~is_kept)
        found.extend(np.rec.fromarrays([own[told], others[told], best[told]], dtype=MEANT))
        kept.extend(own[is_kept])
    result: npt.NDArray[Any] = found.array
    return result


def find_known(
    vectors: Vectors, known: Numbers, asked: Numbers, threshold: float
) -> npt.NDArray[Any]:
    """Those of the asked that mean what a known one does, with the nearest: [n] of `MEANT`."""
    found = Growing(MEANT)
    for start in range(0, len(asked), AT_ONCE):
        own = asked[start : start + AT_ONCE]
        best, others = _nearest(vectors, vectors.of(own), known)
        told = np.flatnonzero(best >= threshold)
        found.extend(np.rec.fromarrays([own[told], others[told], best[told]], dtype=MEANT))
    result: npt.NDArray[Any] = found.array
    return result


def groups_by_meaning(vectors: Vectors, threshold: float) -> Numbers:
    """Group of each text: the number of the first it means the same as, directly or by others."""
    parents = np.arange(len(vectors), dtype=np.int64)
    for one, first in _parts(vectors, np.arange(len(vectors))):
        for other, second in _parts(vectors, np.arange(one[-1] + 1)):
            rows, columns = np.nonzero(first @ second.T >= threshold)
            parents = roots(parents)
            pairs = np.stack([parents[one[rows]], parents[other[columns]]], axis=1)
            for a, b in np.unique(pairs[pairs[:, 0] != pairs[:, 1]], axis=0).tolist():
                join(parents, a, b)
    return roots(parents)


def _nearest(vectors: Vectors, part: Floats, known: Numbers) -> tuple[Floats, Numbers]:
    """For each row of the part the largest cosine with one of the known, and its number."""
    best = np.full(len(part), -1, np.float32)
    others = np.full(len(part), -1, np.int64)
    for numbers, other in _parts(vectors, known):
        cosines = part @ other.T
        places = cosines.argmax(axis=1)
        highest = cosines[np.arange(len(part)), places]
        is_nearer = highest > best
        best[is_nearer], others[is_nearer] = highest[is_nearer], numbers[places[is_nearer]]
    return best, others


def _parts(vectors: Vectors, numbers: Numbers) -> Iterator[tuple[Numbers, Floats]]:
    for start in range(0, len(numbers), AT_ONCE):
        own = numbers[start : start + AT_ONCE]
        yield own, vectors.of(own)
