"""What a classifier does in detail: label by label, and as sure as it is right or not.

Values are scikit-learn's, from the predictions of one system on the held-out rows; shares get
Wilson's interval, all else a percentile bootstrap over rows. Goes into the report, never into the
verdict.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import sparse

from luthier.data import Example, LabelSet
from luthier.evaluation.calibration import Calibration, calibrate
from luthier.evaluation.classes import label_rows
from luthier.evaluation.statistics import wilson
from luthier.evaluation.values import Estimate, Prediction
from luthier.evaluation.wholes import Numbers, Units, percentiles, resampled, units_of
from luthier.recipe import Judging

MAX_CONFUSION = 60
"""Labels up to which a confusion matrix can be read."""
MAX_RANKED = 200
"""Labels up to which each one's ranking is judged too: it is sorted for each of them."""
RESAMPLES = 1000
RESAMPLED_CELLS = 10**8
"""Resamples times rows times labels, at most: many rows need few resamples."""
UNKNOWN = Estimate(None, None, None, 0, "no rows")


@dataclass(frozen=True, slots=True)
class LabelDetail:
    """One label on the held-out rows; what rows cannot tell has no value."""

    label: str
    support: int
    """Rows that have it."""
    precision: Estimate
    recall: Estimate
    f1: Estimate
    auroc: Estimate
    average_precision: Estimate


@dataclass(frozen=True, slots=True)
class Average:
    """Over labels: the mean of each one's (macro), or all labels of all rows together (micro)."""

    name: str
    precision: Estimate
    recall: Estimate
    f1: Estimate
    auroc: Estimate
    average_precision: Estimate


@dataclass(frozen=True, slots=True)
class ClassDetails:
    """A classifier on the held-out rows."""

    system: str
    labels: tuple[LabelDetail, ...]
    averages: tuple[Average, ...]
    confusion: tuple[tuple[int, ...], ...]
    """Rows with a label that were given one, in the order of `labels`; empty where it is too large
    to be read, or rows have several labels."""
    calibration: Calibration | None


def class_details(
    system: str,
    predictions: Sequence[Prediction],
    examples: Sequence[Example],
    label_set: LabelSet,
    evaluation: Judging,
    *,
    seed: int,
) -> ClassDetails:
    """The details of one system's predictions."""
    names = label_set.names
    rows = label_rows(names, predictions, examples)
    truth, given = (side[:, :-1] for side in (rows.truth, rows.given))  # of known labels
    scores = _probabilities(predictions, len(names))
    is_single = label_set.kind == "single"
    judged = _Judged(
        truth, given, scores, evaluation, _weights(units_of(examples, evaluation), len(names), seed)
    )
    labels = tuple(judged.label(i, name) for i, name in enumerate(names))
    return ClassDetails(
        system=system,
        labels=labels,
        averages=judged.averages(),
        confusion=_confusion(rows.truth, rows.given) if is_single else (),
        calibration=None
        if scores is None
        else calibrate(truth.toarray(), scores, is_single=is_single),
    )


def _probabilities(predictions: Sequence[Prediction], num_labels: int) -> Numbers | None:
    if any(len(prediction.probabilities) != num_labels for prediction in predictions):
        return None
    return np.array([prediction.probabilities for prediction in predictions], dtype=np.float64)


def _weights(units: Units, num_labels: int, seed: int) -> Numbers:
    """How often each row counts [1 + R, n]: once, then as often as it is drawn."""
    num_rows = len(units)
    count = RESAMPLED_CELLS // max(1, num_rows * min(num_labels, MAX_RANKED))
    count = max(100, min(RESAMPLES, count))
    rng = np.random.default_rng(seed)
    drawn = np.concatenate([*resampled(units, count, rng)])
    return np.vstack((np.ones((1, num_rows)), drawn))


class _Judged:
    """Labels of rows [n, C] judged under weightings of the rows, the first of them all ones."""

    def __init__(
        self,
        truth: sparse.csr_array,
        given: sparse.csr_array,
        scores: Numbers | None,
        evaluation: Judging,
        weights: Numbers,
    ) -> None:
        self.num_rows, self.evaluation = len(weights[0]), evaluation
        self.right, self.given, self.support = (
            weights @ side for side in (truth.multiply(given), given, truth)
        )  # [1 + R, C] each
        self.precision = _share(self.right, self.given)
        self.recall = _share(self.right, self.support)
        self.f1 = _share(2 * self.right, self.given + self.support)
        self.auroc, self.average_precision = np.full((2, *self.right.shape), np.nan)
        if scores is not None and truth.shape[1] <= MAX_RANKED:
            for i in range(truth.shape[1]):
                self.auroc[:, i], self.average_precision[:, i] = ranking_figures(
                    truth[:, [i]].toarray()[:, 0], scores[:, i], weights
                )

    def label(self, i: int, name: str) -> LabelDetail:
        """One label."""
        right, given, support = (int(x[0, i]) for x in (self.right, self.given, self.support))
        return LabelDetail(
            label=name,
            support=support,
            precision=self._rate(right, given, self.precision[:, i]),
            recall=self._rate(right, support, self.recall[:, i]),
            f1=self._estimate(self.f1[:, i]),
            auroc=self._estimate(self.auroc[:, i]),
            average_precision=self._estimate(self.average_precision[:, i]),
        )

    def averages(self) -> tuple[Average, ...]:
        """Macro over labels that rows have or were given, and micro."""
        used = np.flatnonzero((self.given[0] > 0) | (self.support[0] > 0))
        # As scikit-learn has it: what is never given has a precision of 0 in the mean, and a label
        # that a resample does not hold at all is none of its labels.
        is_there = (self.given + self.support)[:, used] > 0
        shares = [
            np.where(is_there, np.nan_to_num(x[:, used]), np.nan)
            for x in (self.precision, self.recall, self.f1)
        ]
        ranked = np.flatnonzero(np.isfinite(self.auroc[0]))
        rankings = [x[:, ranked] for x in (self.auroc, self.average_precision)]
        macro = [_mean(values) for values in (*shares, *rankings)]
        right, given, support = (x.sum(1) for x in (self.right, self.given, self.support))
        micro = (_share(right, given), _share(right, support), _share(2 * right, given + support))
        return (
            Average("macro", *(self._estimate(values) for values in macro)),
            # Rankings of different labels do not mix.
            Average("micro", *(self._estimate(values) for values in micro), *[UNKNOWN] * 2),
        )

    def _rate(self, passed: int, n: int, values: Numbers) -> Estimate:
        """`values` [1 + R] are the rate under each resampling."""
        if not n:
            return UNKNOWN
        if self.evaluation.group:  # rows of a group are no rows of their own
            return replace(self._estimate(values), n=n)
        limits = wilson(passed, n, self.evaluation.confidence)
        return Estimate(passed / n, limits.low, limits.high, n, limits.method)

    def _estimate(self, values: Numbers) -> Estimate:
        """Of a figure [1 + R]: as it is, and under each resampling."""
        if not np.isfinite(values[0]):
            return UNKNOWN
        low, high = percentiles(values[1:], self.evaluation.confidence)
        return Estimate(float(values[0]), low, high, self.num_rows, "percentile bootstrap")


def _share(part: Numbers, whole: Numbers) -> Numbers:
    """part / whole, NaN of nothing."""
    return np.divide(part, whole, out=np.full_like(part, np.nan), where=whole > 0)


def _mean(values: Numbers) -> Numbers:
    """Mean [1 + R] over the labels of [1 + R, C] that have a number."""
    return _share(np.nansum(values, 1), np.isfinite(values).sum(1).astype(np.float64))


def ranking_figures(truth: Numbers, scores: Numbers, weights: Numbers) -> tuple[Numbers, Numbers]:
    """Area under the ROC curve and average precision [R], for each of R weightings [R, n] of rows.

    scikit-learn's `roc_auc_score` and `average_precision_score` with sample weights, for all
    weightings at once; equal scores count as one step. NaN where rows are all of one kind.
    """
    order = np.argsort(-scores, kind="stable")
    is_step_end = np.append(np.diff(scores[order]) != 0, True)
    found = weights[:, order]
    hits = (found * truth[order]).cumsum(1)[:, is_step_end]
    misses = (found * (1 - truth[order])).cumsum(1)[:, is_step_end]
    num_hits, num_misses = hits[:, -1], misses[:, -1]
    gained, lost = (np.diff(x, axis=1, prepend=0) for x in (hits, misses))
    area = (lost * (hits - gained / 2)).sum(1)
    precision = np.nan_to_num(_share(hits, hits + misses))
    return _share(area, num_hits * num_misses), np.where(
        num_misses > 0, _share((gained * precision).sum(1), num_hits), np.nan
    )


def _confusion(truth: sparse.csr_array, given: sparse.csr_array) -> tuple[tuple[int, ...], ...]:
    """Without the column of labels that the set does not have, which no row is given."""
    from sklearn.metrics import confusion_matrix

    num_labels = truth.shape[1] - 1
    if num_labels > MAX_CONFUSION:
        return ()
    found = confusion_matrix(truth.argmax(1), given.argmax(1), labels=range(num_labels + 1))
    return tuple(tuple(int(x) for x in row[:num_labels]) for row in found[:num_labels])
