"""The nearest of many texts, by their words or by their vectors.

Whoever makes vectors is handed in. bm25s is imported where it is used.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.floating[Any]]
Embed = Callable[[Sequence[str]], Vectors]
"""Vectors [n, D] of texts."""
AT_ONCE = 256
"""Queries whose scores over all texts are held at once."""


class Search(Protocol):
    """Finds texts among those that it knows."""

    def nearest(self, queries: Sequence[str], count: int) -> list[list[int]]:
        """Places of the nearest texts of each query, best first; all where there are fewer."""
        ...


class WordSearch:
    """BM25 (bm25s, its defaults: Lucene's variant)."""

    def __init__(self, texts: Sequence[str]) -> None:
        import bm25s

        self._num_texts = len(texts)
        self._tokenize = bm25s.tokenize
        self._index = bm25s.BM25()
        # Texts without a word leave an index that cannot be asked.
        tokens = self._tokenize(list(texts), show_progress=False)
        self._is_empty = not tokens.vocab
        if not self._is_empty:
            self._index.index(tokens, show_progress=False)

    def nearest(self, queries: Sequence[str], count: int) -> list[list[int]]:
        """Those with the most telling words in common."""
        count = min(count, self._num_texts)
        if not queries or not count or self._is_empty:
            return [[*range(count)] for _ in queries]
        tokens = self._tokenize(list(queries), show_progress=False)
        places, _ = self._index.retrieve(tokens, k=count, show_progress=False)
        return [[int(place) for place in row] for row in places]


class VectorSearch:
    """Cosines of vectors."""

    def __init__(self, texts: Sequence[str], embed: Embed) -> None:
        self._embed, self._vectors = embed, normalized(embed(texts))

    def nearest(self, queries: Sequence[str], count: int) -> list[list[int]]:
        """Those whose vectors point the same way."""
        found: list[list[int]] = []
        for start in range(0, len(queries), AT_ONCE):
            asked = normalized(self._embed(queries[start : start + AT_ONCE]))
            order = np.argsort(-(asked @ self._vectors.T), axis=1, kind="stable")
            found += order[:, :count].tolist()
        return found


def normalized(vectors: Vectors) -> Vectors:
    """Vectors at length 1."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    scaled: Vectors = vectors / np.maximum(lengths, 1e-12)
    return scaled
