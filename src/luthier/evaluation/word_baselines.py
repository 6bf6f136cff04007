"""What words alone find: searches and likeness by counts of words, which vectors must beat.

TF-IDF is scikit-learn's with sublinear counts of words (pairs of words besides made it worse on
package descriptions: nDCG@10 0.756 instead of 0.790), imported where it is used.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from luthier.data import Example, Pair, Query
from luthier.evaluation.baselines import value_prediction
from luthier.evaluation.searching import AT_ONCE, WordSearch
from luthier.evaluation.values import Prediction


class BM25Predictor:
    """Finds texts of a collection by their words (bm25s, its defaults: Lucene's variant)."""

    name = "BM25"

    def __init__(self, texts: dict[str, str], depth: int = 100) -> None:
        self._names, self._depth = tuple(texts), depth
        self._search = WordSearch([*texts.values()])

    def predict(self, examples: Sequence[Example]) -> list[Prediction]:
        """The best texts of each query by its words."""
        places = self._search.nearest([_query(e) for e in examples], self._depth)
        return [
            _ranked(example, [self._names[i] for i in row])
            for example, row in zip(examples, places, strict=True)
        ]


class TfidfSearchPredictor:
    """Finds texts of a collection by the cosine of their TF-IDF vectors."""

    name = "TF-IDF"

    def __init__(self, texts: dict[str, str], depth: int = 100) -> None:
        self._names, self._depth = tuple(texts), depth
        self._words = _words()
        self._passages = self._words.fit_transform(texts.values())

    def predict(self, examples: Sequence[Example]) -> list[Prediction]:
        """The best texts of each query by its words."""
        queries = self._words.transform([_query(example) for example in examples])
        found = []
        for start in range(0, len(examples), AT_ONCE):
            scores = (queries[start : start + AT_ONCE] @ self._passages.T).toarray()
            for example, row in zip(examples[start : start + AT_ONCE], scores, strict=True):
                best = np.argsort(-row, kind="stable")[: self._depth]
                found.append(_ranked(example, [self._names[i] for i in best]))
        return found


class TfidfSimilarityPredictor:
    """How alike the two texts of each pair are, by the cosine of their TF-IDF vectors."""

    name = "TF-IDF"

    def __init__(self, train: Sequence[Pair]) -> None:
        self._words = _words()
        self._words.fit([text for pair in train for text in pair.texts])

    def predict(self, examples: Sequence[Example]) -> list[Prediction]:
        """One prediction per pair, in order."""
        pairs = [example for example in examples if isinstance(example, Pair)]
        first, second = (self._words.transform([pair.texts[i] for pair in pairs]) for i in range(2))
        cosines = np.asarray(first.multiply(second).sum(1)).ravel()
        return [value_prediction(p.id, float(x)) for p, x in zip(pairs, cosines, strict=True)]


def _words() -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer

    return TfidfVectorizer(sublinear_tf=True)


def _query(example: Example) -> str:
    return example.text if isinstance(example, Query) else example.prompt[0].content


def _ranked(example: Example, names: list[str]) -> Prediction:
    return Prediction(example.id, names[0], True, 0, ranking=tuple(names))
