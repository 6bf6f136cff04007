"""Rows whose given label is doubtful: a classifier that did not see them disputes it.

Confident learning (Northcutt et al. 2021), by cleanlab, over cross-validated probabilities of a
linear probe on vectors. Vectors of the tuned model find few wrong rows that are right: of 5,000
intents with 149 labels exchanged at random, 79 were found and all of them exchanged, while those of
the untuned model gave 345, a third of them exchanged. A model that has learnt its rows by heart, as
without validation rows it may, finds nothing. What is found is listed, never changed.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from luthier.data import Labelled, LabelSet
from luthier.evaluation.baselines import MANY_LABELS, MAX_ROUNDS, STRENGTH, normalized
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
    train: Sequence[Labelled], vectors: Numbers, label_set: LabelSet, *, seed: int
) -> tuple[Suspect, ...]:
    """Doubtful rows, the most doubtful first; vectors [n, D] of the training rows.

    Nothing is found where rows have several labels, labels have too few rows, or there are more
    labels than a linear model can part in reasonable time.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    if label_set.kind != "single":
        return ()
    counts = dict(zip(label_set.names, label_set.counts, strict=True))
    usable = [i for i, example in enumerate(train) if counts[example.labels[0]] >= MIN_ROWS]
    names = sorted({train[i].labels[0] for i in usable})
    if not 2 <= len(names) <= MANY_LABELS:
        return ()
    place = {name: number for number, name in enumerate(names)}
    given = np.array([place[train[i].labels[0]] for i in usable])
    folds = min(NUM_FOLDS, int(np.bincount(given).min()))
    shares = cross_val_predict(
        LogisticRegression(C=STRENGTH, max_iter=MAX_ROUNDS),
        normalized(vectors[usable]),
        given,
        cv=StratifiedKFold(folds, shuffle=True, random_state=seed),
        method="predict_proba",
    )
    found = _disputed(given, shares)
    return tuple(
        Suspect(
            train[usable[i]].id,
            str(train[usable[i]].place),
            "\n".join(train[usable[i]].texts),
            names[given[i]],
            names[int(shares[i].argmax())],
            float(shares[i, given[i]]),
        )
        for i in found
    )


def _disputed(given: Numbers, shares: Numbers) -> list[int]:
    from cleanlab.filter import find_label_issues

    ranked = find_label_issues(given, shares, return_indices_ranked_by="self_confidence", n_jobs=1)
    return [int(i) for i in ranked]
