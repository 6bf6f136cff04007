"""Rows whose given label is doubtful: classifiers that did not see them dispute it.

Confident learning (Northcutt et al. 2021), by cleanlab, over cross-validated probabilities: the
mean of a linear model of words and letters and of one on vectors of the model before it learnt from
these rows. Of 5,000 intents with 150 labels exchanged at random, this found 107 among 155 rows;
words and letters alone 108 among 175, vectors alone 105 among 226. Vectors of the tuned model found
2, for it knows its rows by heart. What is found is listed, never changed.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from luthier.data import Labelled, LabelSet
from luthier.evaluation.baselines import (
    MANY_LABELS,
    MAX_ROUNDS,
    STRENGTH,
    joined,
    word_features,
)
from luthier.evaluation.searching import normalized
from luthier.evaluation.wholes import Numbers

NUM_FOLDS = 5
MIN_ROWS = 3
"""Rows of a label below which nothing can be said against one of them."""


@dataclass(frozen=True, slots=True)
class Suspect:
    """A row whose label is doubtful."""

    example_id: str
    place: str
    text: str
    label: str
    suggested: str
    """The label that the others make likeliest."""
    quality: float
    """Probability of the given label; the smaller, the more doubtful."""


def find_suspects(
    train: Sequence[Labelled], vectors: Numbers | None, label_set: LabelSet, *, seed: int
) -> tuple[Suspect, ...]:
    """Doubtful rows, the most doubtful first; vectors [n, D] of the training rows, if known.

    Nothing is found where rows have several labels, labels have too few rows, or there are more
    labels than a linear model can part in reasonable time.
    """
    if label_set.kind != "single":
        return ()
    counts = dict(zip(label_set.names, label_set.counts, strict=True))
    usable = [i for i, example in enumerate(train) if counts[example.labels[0]] >= MIN_ROWS]
    names = sorted({train[i].labels[0] for i in usable})
    if not 2 <= len(names) <= MANY_LABELS:
        return ()
    place = {name: number for number, name in enumerate(names)}
    given = np.array([place[train[i].labels[0]] for i in usable])
    words = word_features().fit_transform([joined(train[i]) for i in usable])
    views = [words, *([] if vectors is None else [normalized(vectors[usable])])]
    shares = np.mean([_cross_validated(view, given, seed) for view in views], axis=0)
    return tuple(
        Suspect(
            train[usable[i]].id,
            str(train[usable[i]].place),
            "\n".join(train[usable[i]].texts),
            names[given[i]],
            names[int(shares[i].argmax())],
            float(shares[i, given[i]]),
        )
        for i in _disputed(given, shares)
    )


def _cross_validated(features: Any, given: Numbers, seed: int) -> Numbers:
    """Probabilities [n, C] of rows, by linear models that did not see them."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    folds = min(NUM_FOLDS, int(np.bincount(given).min()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        found: Numbers = cross_val_predict(
            LogisticRegression(C=STRENGTH, max_iter=MAX_ROUNDS),
            features,
            given,
            cv=StratifiedKFold(folds, shuffle=True, random_state=seed),
            method="predict_proba",
        )
    return found


def _disputed(given: Numbers, shares: Numbers) -> list[int]:
    """Rows that both of cleanlab's ways dispute, the least probable label first."""
    from cleanlab.filter import find_label_issues

    ranked = find_label_issues(
        given, shares, filter_by="both", return_indices_ranked_by="self_confidence", n_jobs=1
    )
    return [int(i) for i in ranked]
