"""Whether a classifier is as sure as it is right, and what makes it so.

Expected calibration error over bins of equal counts, for the label given (Guo et al. 2017, with
the adaptive bins of Nixon et al. 2019), a reliability curve, the temperature that validation rows
ask for, and thresholds of labels that rows may have several of.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from luthier.evaluation.wholes import Numbers

NUM_BINS = 10


@dataclass(frozen=True, slots=True)
class Bin:
    """Answers of like confidence."""

    confidence: float
    """Mean probability that they were given with."""
    accuracy: float
    """Share of them that are right."""
    n: int


@dataclass(frozen=True, slots=True)
class Calibration:
    """How sure and how right."""

    error: float
    """Expected calibration error: mean distance of confidence and accuracy."""
    bins: tuple[Bin, ...]


def calibrate(truth: Numbers, probabilities: Numbers, *, is_single: bool) -> Calibration:
    """Calibration of answers: of the label given, or of each label's yes or no.

    truth [n, C] of 0 and 1, probabilities [n, C].
    """
    if is_single:
        given = probabilities.argmax(1)
        confidence = probabilities.max(1)
        right = truth[np.arange(len(truth)), given]
    else:
        confidence, right = probabilities.ravel(), truth.ravel()
    order = np.argsort(confidence, kind="stable")
    parts = [part for part in np.array_split(order, NUM_BINS) if len(part)]
    bins = tuple(
        Bin(float(confidence[part].mean()), float(right[part].mean()), len(part)) for part in parts
    )
    error = sum(abs(b.confidence - b.accuracy) * b.n for b in bins) / max(1, len(order))
    return Calibration(float(error), bins)


def best_temperature(logits: Numbers, labels: Sequence[int]) -> float:
    """The temperature by which logits [n, C] are divided so that the labels are likeliest.

    Of n rows one more is supposed that says nothing: where all are right, the next need not be
    (Platt 1999 smooths his targets for the same reason). 1 where there are fewer than two.
    """
    if len(labels) < 2:
        return 1.0
    rows = np.arange(len(labels))

    def loss(log_temperature: float) -> float:
        shares = log_softmax(logits / np.exp(log_temperature), axis=1)
        return float(-shares[rows, list(labels)].mean() - shares.mean() / len(labels))

    found = minimize_scalar(loss, bounds=(-3, 3), method="bounded")
    return float(np.exp(found.x)) if found.fun < loss(0.0) else 1.0


def best_thresholds(probabilities: Numbers, truth: Numbers) -> tuple[float, ...]:
    """For each label the probability [C] from which it is given, with the highest F1 on these rows.

    0.5 for a label that no row has, or all have.
    """
    from sklearn.metrics import precision_recall_curve

    found = []
    for scores, wanted in zip(probabilities.T, truth.T, strict=True):
        if not 0 < wanted.sum() < len(wanted):
            found.append(0.5)
            continue
        precision, recall, thresholds = precision_recall_curve(wanted, scores)
        total = precision + recall
        f1 = np.divide(2 * precision * recall, total, out=np.zeros_like(total), where=total > 0)
        best = int(f1[:-1].argmax())
        below = scores[scores < thresholds[best]]
        # Halfway to the next row below, so that the threshold is not one row's own score.
        lower = float(below.max()) if len(below) else 0.0
        found.append(float((thresholds[best] + lower) / 2))
    return tuple(found)
