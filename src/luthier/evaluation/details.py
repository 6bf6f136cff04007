"""What a classifier does in detail: label by label, sure or unsure, slice by slice.

Everything is computed by scikit-learn from the predictions of one system on the held-out rows;
shares get Wilson's interval, curves none. Goes into the report, never into the verdict.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from luthier.data import Example, Labelled, LabelSet
from luthier.evaluation.calibration import Calibration, calibrate
from luthier.evaluation.classes import label_rows
from luthier.evaluation.statistics import Interval, wilson
from luthier.evaluation.values import Prediction
from luthier.evaluation.wholes import Numbers

MAX_CONFUSION = 60
"""Labels up to which a confusion matrix can be read."""
MIN_SLICE = 5
"""Rows of a slice below which it is not told apart."""
MAX_SLICES = 20
"""Values of a column above which it is no slice."""


@dataclass(frozen=True, slots=True)
class LabelDetail:
    """One label on the held-out rows."""

    label: str
    support: int
    """Rows that have it."""
    precision: float | None
    """None where it was never given."""
    precision_interval: tuple[float | None, float | None]
    recall: float | None
    """None where no row has it."""
    recall_interval: tuple[float | None, float | None]
    f1: float
    auroc: float | None
    average_precision: float | None


@dataclass(frozen=True, slots=True)
class Averages:
    """Means over labels, and over all labels of all rows."""

    macro: tuple[float, float, float]
    """Precision, recall, F1."""
    micro: tuple[float, float, float]
    auroc: float | None
    average_precision: float | None


@dataclass(frozen=True, slots=True)
class SliceDetail:
    """Rows that have a value in a column."""

    column: str
    value: str
    n: int
    share: float
    """Of rows with all labels right."""
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class ClassDetails:
    """A classifier on the held-out rows."""

    system: str
    labels: tuple[LabelDetail, ...]
    averages: Averages
    confusion: tuple[tuple[int, ...], ...]
    """Rows with a label that were given one, in the order of `labels`; empty where it is too large
    to be read, or rows have several labels."""
    calibration: Calibration | None
    slices: tuple[SliceDetail, ...]


def class_details(
    system: str,
    predictions: Sequence[Prediction],
    examples: Sequence[Example],
    label_set: LabelSet,
    confidence: float,
) -> ClassDetails:
    """The details of one system's predictions."""
    names = label_set.names
    rows = label_rows(names, predictions, examples)
    truth, given = (side[:, :-1].astype(int) for side in (rows.truth, rows.given))
    scores = _probabilities(predictions, len(names))
    labels = tuple(
        _label(name, truth[:, i], given[:, i], None if scores is None else scores[:, i], confidence)
        for i, name in enumerate(names)
    )
    is_single = label_set.kind == "single"
    return ClassDetails(
        system=system,
        labels=labels,
        averages=_averages(truth, given, labels),
        confusion=_confusion(rows.truth, rows.given) if is_single else (),
        calibration=None if scores is None else calibrate(truth, scores, is_single=is_single),
        slices=slice_details(predictions, examples, confidence),
    )


def _probabilities(predictions: Sequence[Prediction], num_labels: int) -> Numbers | None:
    if any(len(prediction.probabilities) != num_labels for prediction in predictions):
        return None
    return np.array([prediction.probabilities for prediction in predictions], dtype=np.float64)


def _label(
    name: str, truth: Numbers, given: Numbers, scores: Numbers | None, confidence: float
) -> LabelDetail:
    from sklearn.metrics import (
        average_precision_score,
        precision_recall_fscore_support,
        roc_auc_score,
    )

    right, num_given, support = (int(x) for x in ((truth * given).sum(), given.sum(), truth.sum()))
    _, _, f1, _ = precision_recall_fscore_support(truth, given, average="binary", zero_division=0)
    both_sides = 0 < support < len(truth)
    rankable = scores is not None and both_sides
    return LabelDetail(
        label=name,
        support=support,
        precision=right / num_given if num_given else None,
        precision_interval=_limits(wilson(right, num_given, confidence)),
        recall=right / support if support else None,
        recall_interval=_limits(wilson(right, support, confidence)),
        f1=float(f1),
        auroc=float(roc_auc_score(truth, scores)) if rankable else None,
        average_precision=float(average_precision_score(truth, scores)) if rankable else None,
    )


def _limits(interval: Interval) -> tuple[float | None, float | None]:
    return interval.low, interval.high


def _averages(truth: Numbers, given: Numbers, labels: Sequence[LabelDetail]) -> Averages:
    from sklearn.metrics import precision_recall_fscore_support

    used = np.flatnonzero(truth.any(0) | given.any(0))
    macro, micro = (
        precision_recall_fscore_support(
            truth, given, labels=used, average=average, zero_division=0
        )[:3]
        for average in ("macro", "micro")
    )
    ranked = [label for label in labels if label.auroc is not None]
    return Averages(
        macro=(float(macro[0]), float(macro[1]), float(macro[2])),
        micro=(float(micro[0]), float(micro[1]), float(micro[2])),
        auroc=_mean([label.auroc for label in ranked]),
        average_precision=_mean([label.average_precision for label in ranked]),
    )


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _confusion(truth: Numbers, given: Numbers) -> tuple[tuple[int, ...], ...]:
    """Without the column of labels that the set does not have, which no row is given."""
    from sklearn.metrics import confusion_matrix

    num_labels = truth.shape[1] - 1
    if num_labels > MAX_CONFUSION:
        return ()
    found = confusion_matrix(truth.argmax(1), given.argmax(1), labels=range(num_labels + 1))
    return tuple(tuple(int(x) for x in row[:num_labels]) for row in found[:num_labels])


def slice_details(
    predictions: Sequence[Prediction], examples: Sequence[Example], confidence: float
) -> tuple[SliceDetail, ...]:
    """The share of rows with all labels right, for each value of each column that parts rows."""
    right = [
        isinstance(example, Labelled) and set(prediction.labels) == set(example.labels)
        for prediction, example in zip(predictions, examples, strict=True)
    ]
    found = []
    for column in sorted({name for example in examples for name in example.slices}):
        values = Counter(x.slices[column] for x in examples if column in x.slices)
        if not 2 <= len(values) <= MAX_SLICES:
            continue
        for value, n in sorted(values.items()):
            if n < MIN_SLICE:
                continue
            passed = sum(
                is_right
                for is_right, example in zip(right, examples, strict=True)
                if example.slices.get(column) == value
            )
            limits = wilson(passed, n, confidence)
            found.append(SliceDetail(column, value, n, passed / n, limits.low, limits.high))
    return tuple(found)
