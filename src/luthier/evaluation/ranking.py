"""Scorers of search: how good the list is that a query gets, query by query.

Definitions are trec_eval's, as `ir-measures` and scikit-learn have them: nDCG with the grade as
gain (Jarvelin and Kekalainen 2002), the reciprocal rank of the first relevant text, and the share
of relevant texts found.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import log2

from luthier.data import Example, Pair, Query
from luthier.evaluation.values import Metric, Prediction

DEPTH = 10


@dataclass(frozen=True, slots=True)
class RankingScorer:
    """Judges the list that a query gets."""

    metric: Metric
    judge: Callable[[tuple[str, ...], dict[str, float]], float]
    """Of names in order, and the grades of those that are relevant."""

    def score(self, prediction: Prediction, example: Example) -> float | None:
        """What the function says; None of a query without a relevant text."""
        grades = relevant_to(example)
        return self.judge(prediction.ranking, grades) if grades else None


def relevant_to(example: Example) -> dict[str, float]:
    """Names of the texts that a query should find, with grades; a pair's positive is its own."""
    if isinstance(example, Query):
        return dict(example.relevant)
    return {example.positive: 1.0} if isinstance(example, Pair) else {}


def ndcg(ranking: tuple[str, ...], grades: dict[str, float]) -> float:
    """Normalised discounted cumulative gain of the first ten."""
    found = _gain([grades.get(name, 0.0) for name in ranking[:DEPTH]])
    return found / _gain(sorted(grades.values(), reverse=True)[:DEPTH])


def _gain(grades: list[float]) -> float:
    return sum(grade / log2(rank + 2) for rank, grade in enumerate(grades))


def reciprocal_rank(ranking: tuple[str, ...], grades: dict[str, float]) -> float:
    """1 / rank of the first relevant text among the first ten, or 0."""
    places = (rank for rank, name in enumerate(ranking[:DEPTH], 1) if grades.get(name, 0) > 0)
    return 1 / next(places, float("inf"))


def recall(ranking: tuple[str, ...], grades: dict[str, float]) -> float:
    """Share of the relevant texts among the first ten."""
    relevant = {name for name, grade in grades.items() if grade > 0}
    return len(relevant.intersection(ranking[:DEPTH])) / len(relevant)


RANKING_SCORERS = {
    "ndcg_10": RankingScorer(Metric("ndcg_10", "nDCG@10", "number", True, "plain"), ndcg),
    "mrr_10": RankingScorer(
        Metric("mrr_10", "reciprocal rank", "number", True, "plain"), reciprocal_rank
    ),
    "recall_10": RankingScorer(Metric("recall_10", "recall@10", "number", True, "share"), recall),
}
