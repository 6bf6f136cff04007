"""Scorers of classifiers: labels right or wrong row by row, and numbers over all rows.

Definitions are scikit-learn's. What is resampled thousands of times is computed here from counts,
which is the same number a thousand times faster; `tests/evaluation/test_classes.py` holds the two
against each other.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import log

import numpy as np
from scipy import sparse

from luthier.data import Example, Labelled, LabelSet, as_number
from luthier.evaluation.values import Metric, Prediction
from luthier.evaluation.wholes import Kinds, Numbers, WholeScorer

TINY = 1e-7
"""A probability of less is taken for this one, as scikit-learn's log_loss does for float32."""


@dataclass(frozen=True, slots=True)
class LabelScorer:
    """Judges the labels of one row."""

    metric: Metric
    judge: Callable[[Prediction, Labelled], float | None]

    def score(self, prediction: Prediction, example: Example) -> float | None:
        """What the function says; None of an example that is no labelled text."""
        return self.judge(prediction, example) if isinstance(example, Labelled) else None


@dataclass(frozen=True, slots=True)
class LabelRows:
    """Which labels rows have and were given, [n, C] of 0 and 1: few of thousands, so sparse."""

    truth: sparse.csr_array
    given: sparse.csr_array

    def joined(self, other: "LabelRows") -> "LabelRows":
        """These rows, and after them the other's."""
        truth = sparse.vstack((self.truth, other.truth), format="csr")
        return LabelRows(truth, sparse.vstack((self.given, other.given), format="csr"))

    def counts(self, weights: Numbers) -> tuple[Numbers, Numbers, Numbers]:
        """Under R weightings [R, n]: how often each label was given rightly, was given, is there.

        [R, C] each, of the C labels that occur.
        """
        is_there = (self.truth + self.given).sum(0) > 0
        truth, given = self.truth[:, is_there], self.given[:, is_there]
        return weights @ truth.multiply(given), weights @ given, weights @ truth

    def kinds(self) -> Kinds:
        """[n]: a number for each row, the same for equal ones."""
        both = sparse.hstack((self.truth, self.given), format="csr")
        both.sort_indices()
        ends = zip(both.indptr[:-1].tolist(), both.indptr[1:].tolist(), strict=True)
        known: dict[bytes, int] = {}
        labels = (both.indices[start:end].tobytes() for start, end in ends)
        return np.array([known.setdefault(own, len(known)) for own in labels], np.intp)

    def at(self, rows: Kinds) -> "LabelRows":
        """Only these rows, in this order."""
        return LabelRows(self.truth[rows], self.given[rows])

    def __len__(self) -> int:
        return int(self.truth.shape[0])


@dataclass(frozen=True, slots=True)
class NumberRows:
    """Numbers that rows have and were given, [n]."""

    truth: Numbers
    given: Numbers

    def joined(self, other: "NumberRows") -> "NumberRows":
        """These rows, and after them the other's."""
        return NumberRows(
            np.concatenate((self.truth, other.truth)), np.concatenate((self.given, other.given))
        )

    def kinds(self) -> Kinds:
        """[n]: a number for each row, the same for equal ones."""
        both = np.stack((self.truth, self.given), axis=1)
        return np.unique(both, axis=0, return_inverse=True)[1]

    def at(self, rows: Kinds) -> "NumberRows":
        """Only these rows, in this order."""
        return NumberRows(self.truth[rows], self.given[rows])

    def __len__(self) -> int:
        return len(self.truth)


def label_rows(
    names: Sequence[str], predictions: Sequence[Prediction], examples: Sequence[Example]
) -> LabelRows:
    """Labels as arrays; labels that the set does not have stand in a column of their own."""
    place = {name: i for i, name in enumerate(names)}

    def table(labels: Sequence[Sequence[str]]) -> sparse.csr_array:
        columns = [{place.get(label, len(names)) for label in each} for each in labels]
        starts = np.cumsum([0, *map(len, columns)])
        flat = np.array([column for each in columns for column in each], dtype=np.int64)
        shape = (len(labels), len(names) + 1)
        return sparse.csr_array((np.ones(len(flat)), flat, starts), shape=shape)

    return LabelRows(
        table([example.labels for example in examples if isinstance(example, Labelled)]),
        table([prediction.labels for prediction in predictions]),
    )


def macro_f1(rows: LabelRows, weights: Numbers) -> Numbers:
    """Mean of the labels' F1 [R], over labels that rows have or were given."""
    right, given, support = rows.counts(weights)
    total = given + support
    f1 = np.divide(2 * right, total, out=np.zeros_like(right), where=total > 0)
    counted: Numbers = f1.sum(1) / np.maximum(1, (total > 0).sum(1))
    return counted


def micro_f1(rows: LabelRows, weights: Numbers) -> Numbers:
    """F1 [R] over all labels of all rows together."""
    right, given, support = (x.sum(1) for x in rows.counts(weights))
    total = given + support
    found: Numbers = np.divide(2 * right, total, out=np.zeros_like(right), where=total > 0)
    return found


def spearman(rows: NumberRows, weights: Numbers) -> Numbers:
    """Spearman's rank correlation [R]; NaN where either side is constant.

    Rows weighted w count as w rows of one rank.
    """
    return np.array([_weighted_spearman(rows, w) for w in weights])


def _weighted_spearman(rows: NumberRows, weights: Numbers) -> float:
    is_there = weights > 0
    ranks = [
        _weighted_ranks(side[is_there], weights[is_there]) for side in (rows.truth, rows.given)
    ]
    covariance = np.cov(ranks[0], ranks[1], aweights=weights[is_there], ddof=0)
    spread = float(np.sqrt(covariance[0, 0] * covariance[1, 1]))
    return float(covariance[0, 1] / spread) if spread > 1e-12 else float("nan")


def _weighted_ranks(values: Numbers, weights: Numbers) -> Numbers:
    """Mean rank of each value among rows that count as often as their weights say."""
    _, group = np.unique(values, return_inverse=True)
    totals = np.bincount(group, weights=weights)
    ranks: Numbers = (np.cumsum(totals) - (totals - 1) / 2)[group]
    return ranks


def quadratic_kappa(rows: NumberRows, weights: Numbers) -> Numbers:
    """Agreement of whole numbers [R] beyond chance (Cohen 1968): 1 at best, 0 by chance.

    Disagreements weigh by their square. What is given is rounded to a whole number of the scale,
    from the least true one to the largest. NaN where both sides are one number throughout, or the
    true ones are not whole.
    """
    truth = rows.truth
    if not len(truth) or (truth != np.rint(truth)).any():
        return np.full(len(weights), np.nan)
    given = np.clip(np.rint(rows.given), truth.min(), truth.max())
    share = weights / weights.sum(1, keepdims=True)
    means = share @ truth, share @ given
    spreads = share @ truth**2 - means[0] ** 2, share @ given**2 - means[1] ** 2
    by_chance = spreads[0] + spreads[1] + (means[0] - means[1]) ** 2
    found = share @ (truth - given) ** 2
    nowhere = np.full_like(found, np.nan)
    agreement: Numbers = 1 - np.divide(found, by_chance, out=nowhere, where=by_chance > 1e-12)
    return agreement


def _number_rows(predictions: Sequence[Prediction], examples: Sequence[Example]) -> NumberRows:
    found = [
        (_true_value(example), prediction.value)
        for prediction, example in zip(predictions, examples, strict=True)
    ]
    known = [(truth, given) for truth, given in found if truth is not None and given is not None]
    truth, given = np.array(known, dtype=np.float64).reshape(-1, 2).T
    return NumberRows(truth, given)


def _true_value(example: Example) -> float | None:
    if isinstance(example, Labelled):
        return as_number(example.labels[0])
    score = getattr(example, "score", None)
    return None if score is None else float(score)


def _is_right(prediction: Prediction, example: Labelled) -> float:
    return float(set(prediction.labels) == set(example.labels))


def _balanced(share: dict[str, float], prediction: Prediction, example: Labelled) -> float | None:
    return _is_right(prediction, example) * share[example.labels[0]]


def _log_loss(names: Sequence[str], prediction: Prediction, example: Labelled) -> float | None:
    if not prediction.probabilities or example.labels[0] not in names:
        return None
    return -log(max(TINY, prediction.probabilities[names.index(example.labels[0])]))


def _sample_f1(prediction: Prediction, example: Labelled) -> float:
    truth, given = set(example.labels), set(prediction.labels)
    if not truth and not given:
        return 1.0
    return 2 * len(truth & given) / (len(truth) + len(given))


def _absolute_error(prediction: Prediction, example: Labelled) -> float | None:
    truth = as_number(example.labels[0])
    return None if truth is None or prediction.value is None else abs(prediction.value - truth)


SPEARMAN = WholeScorer(
    Metric("spearman", "Spearman correlation", "whole", True, "plain"), _number_rows, spearman
)

KAPPA = WholeScorer(
    Metric("quadratic_kappa", "quadratic kappa", "whole", True, "plain"),
    _number_rows, quadratic_kappa,
)  # fmt: skip


def number_scorers() -> dict[str, LabelScorer | WholeScorer]:
    """Name -> scorer for pairs with scores."""
    return {"spearman": SPEARMAN}


def class_scorers(
    label_set: LabelSet, examples: Sequence[Example]
) -> dict[str, LabelScorer | WholeScorer]:
    """Name -> scorer for the held-out rows of a classifier."""
    if label_set.kind == "number":
        error = Metric("absolute_error", "absolute error", "number", False, "plain")
        return {
            "absolute_error": LabelScorer(error, _absolute_error),
            "quadratic_kappa": KAPPA,
            **number_scorers(),
        }
    counts = Counter(e.labels[0] for e in examples if isinstance(e, Labelled) and e.labels)
    share = {label: len(examples) / (len(counts) * count) for label, count in counts.items()}
    look = partial(label_rows, label_set.names)
    several: dict[str, LabelScorer | WholeScorer] = {
        "labels": LabelScorer(
            Metric("labels", "all labels right", "pass_fail", True, "share"), _is_right
        ),
        "labels_f1": LabelScorer(
            Metric("labels_f1", "F1 of a row's labels", "number", True, "share"), _sample_f1
        ),
        "micro_f1": WholeScorer(
            Metric("micro_f1", "micro F1", "whole", True, "share"), look, micro_f1
        ),
        "macro_f1": WholeScorer(
            Metric("macro_f1", "macro F1", "whole", True, "share"), look, macro_f1
        ),
    }
    if label_set.kind == "multi":
        return several
    return {
        "accuracy": LabelScorer(
            Metric("accuracy", "accuracy", "pass_fail", True, "share"), _is_right
        ),
        "balanced_accuracy": LabelScorer(
            Metric("balanced_accuracy", "balanced accuracy", "number", True, "share"),
            partial(_balanced, share),
        ),
        "log_loss": LabelScorer(
            Metric("log_loss", "log loss", "number", False, "nats"),
            partial(_log_loss, label_set.names),
        ),
        "macro_f1": several["macro_f1"],
    }
