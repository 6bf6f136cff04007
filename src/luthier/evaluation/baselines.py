"""What simple methods answer on the same rows, before anything is trained: what tuning must beat.

For labels the majority, TF-IDF with logistic regression, and on vectors of the untuned model the
nearest neighbours, a linear probe, and the label whose name is nearest (zero-shot). All are
scikit-learn's own, with the settings said here. Vectors come in as arrays; nothing here knows
models. scikit-learn is imported where it is used: it takes a second, and most commands need none of
it.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, partial
from typing import Any

import numpy as np

from luthier.data import Example, Labelled, LabelSet, as_number
from luthier.evaluation.searching import Embed, Vectors, normalized
from luthier.evaluation.values import Prediction
from luthier.evaluation.wholes import Numbers

NUM_NEIGHBOURS = 5
MAX_ROUNDS = 1000
STRENGTH = 10.0
"""Inverse regularisation of linear models. scikit-learn's 1 holds TF-IDF back: of intents learnt
from 5,000 rows 81.4 % were right, 85.7 % with 10, 85.6 % with 100."""
MANY_LABELS = 200
"""Labels above which linear models (a weight for each label and word) make way for neighbours."""


@dataclass
class FittedPredictor:
    """A simple method that learns from the training rows when it is first asked."""

    name: str
    fit: Callable[[], Any]
    """Makes the fitted estimator."""
    features: Callable[[Sequence[Example]], Any]
    """Examples -> what the estimator reads."""
    label_set: LabelSet

    @cached_property
    def estimator(self) -> Any:
        """What has learnt."""
        return self.fit()

    def predict(self, examples: Sequence[Example]) -> list[Prediction]:
        """One prediction per example, in order."""
        features = self.features(examples)
        if self.label_set.kind == "number":
            return [
                value_prediction(example.id, float(value))
                for example, value in zip(examples, self.estimator.predict(features), strict=True)
            ]
        shares = self._probabilities(features)
        return [
            label_prediction(example.id, self.label_set, row)
            for example, row in zip(examples, shares, strict=True)
        ]

    def _probabilities(self, features: Any) -> Numbers:
        """[n, C] in the order of the label set."""
        shares = np.asarray(self.estimator.predict_proba(features), dtype=np.float64)
        if self.label_set.kind == "multi":
            # Of one label scikit-learn gives both columns, without it and with it.
            return shares[:, -self.label_set.num_labels :]
        found = np.zeros((len(shares), self.label_set.num_labels))
        found[:, np.asarray(self.estimator.classes_, dtype=int)] = shares
        return found


def label_prediction(
    example_id: str,
    label_set: LabelSet,
    probabilities: Numbers,
    thresholds: Sequence[float] = (),
) -> Prediction:
    """The labels that probabilities [C] give: the likeliest, or all from their threshold on."""
    if label_set.kind == "single":
        labels: tuple[str, ...] = (label_set.names[int(np.argmax(probabilities))],)
    else:
        limits = thresholds or [0.5] * label_set.num_labels
        labels = tuple(
            name
            for name, share, limit in zip(label_set.names, probabilities, limits, strict=True)
            if share >= limit
        )
    shares = tuple(float(share) for share in probabilities)
    return Prediction(example_id, ", ".join(labels), True, 0, labels=labels, probabilities=shares)


def value_prediction(example_id: str, value: float) -> Prediction:
    """A number as an answer."""
    return Prediction(example_id, f"{value:.4g}", True, 0, value=value)


@dataclass(frozen=True)
class MajorityPredictor:
    """Always the most frequent label of the training rows, or their mean number."""

    label_set: LabelSet
    mean: float = 0.0
    num_rows: int = 1
    name: str = "most frequent label"

    def predict(self, examples: Sequence[Example]) -> list[Prediction]:
        """The same for every example."""
        if self.label_set.kind == "number":
            return [value_prediction(example.id, self.mean) for example in examples]
        shares = np.array(self.label_set.counts) / self.num_rows
        return [label_prediction(example.id, self.label_set, shares) for example in examples]


@dataclass(frozen=True)
class NearestNamePredictor:
    """The label whose name has the nearest vector (zero-shot); needs no training rows."""

    label_set: LabelSet
    embed: Embed
    name: str = "nearest label name"
    sharpness: float = 20.0
    """Cosines times this are taken for logits."""

    def predict(self, examples: Sequence[Example]) -> list[Prediction]:
        """One prediction per example, in order."""
        names = normalized(self.embed([readable(name) for name in self.label_set.names]))
        texts = normalized(self.embed([joined(example) for example in examples]))
        cosines = self.sharpness * texts @ names.T
        shares = np.exp(cosines - cosines.max(1, keepdims=True))
        shares /= shares.sum(1, keepdims=True)
        return [
            label_prediction(example.id, self.label_set, row)
            for example, row in zip(examples, shares, strict=True)
        ]


def readable(label: str) -> str:
    """A label as words: HassTurnOn and turn_on become hass turn on and turn on."""
    spaced = "".join(f" {c}" if c.isupper() and not p.isupper() else c
                     for p, c in zip(f" {label}", label, strict=False))  # fmt: skip
    return " ".join(spaced.replace("_", " ").replace("-", " ").replace(".", " ").lower().split())


def joined(example: Example) -> str:
    """The texts of an example as one."""
    return "\n".join(example.texts) if isinstance(example, Labelled) else example.prompt[0].content


def label_baselines(train: Sequence[Labelled], label_set: LabelSet, embed: Embed) -> list[Any]:
    """All simple methods for labels or numbers, learning from the training rows, cheapest first."""
    texts = [joined(example) for example in train]
    targets = _targets(train, label_set)

    @cache
    def words() -> tuple[Any, Any]:
        features = word_features()
        return features, features.fit_transform(texts)

    @cache
    def vectors() -> Vectors:
        return normalized(embed(texts))

    def of_words(examples: Sequence[Example]) -> Any:
        return words()[0].transform([joined(example) for example in examples])

    def of_vectors(examples: Sequence[Example]) -> Any:
        return normalized(embed([joined(example) for example in examples]))

    def method(name: str, build: Callable[[], Any], is_of_words: bool) -> FittedPredictor:
        fit = partial(_fitted, build, (lambda: words()[1]) if is_of_words else vectors, targets)
        return FittedPredictor(name, fit, of_words if is_of_words else of_vectors, label_set)

    mean = float(np.mean(targets)) if label_set.kind == "number" else 0.0
    linear, near = partial(_linear, label_set), partial(_neighbours, label_set, len(train))
    found: list[Any] = [MajorityPredictor(label_set, mean, len(train))]
    if label_set.num_labels <= MANY_LABELS:
        found.append(method("TF-IDF, linear", linear, True))
        found.append(method("nearest neighbours", near, False))
        found.append(method("linear probe", linear, False))
    else:
        found.append(method("TF-IDF, nearest neighbours", near, True))
        found.append(method("nearest neighbours", near, False))
    if label_set.kind != "number":
        found.append(NearestNamePredictor(label_set, embed))
    return found


def _fitted(build: Callable[[], Any], features: Callable[[], Any], targets: Numbers) -> Any:
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return build().fit(features(), targets)


def word_features() -> Any:
    """TF-IDF of words, of two of them, and of letters within them; fitted to texts."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import FeatureUnion

    return FeatureUnion(
        [
            ("words", TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2), min_df=1)),
            ("letters", TfidfVectorizer(sublinear_tf=True, analyzer="char_wb", ngram_range=(2, 4))),
        ]
    )


def _targets(train: Sequence[Labelled], label_set: LabelSet) -> Numbers:
    if label_set.kind == "number":
        return np.array([as_number(example.labels[0]) for example in train], dtype=np.float64)
    place = {name: i for i, name in enumerate(label_set.names)}
    if label_set.kind == "single":
        return np.array([place[example.labels[0]] for example in train])
    found = np.zeros((len(train), label_set.num_labels))
    for row, example in enumerate(train):
        found[row, [place[label] for label in example.labels]] = 1
    return found


def _linear(label_set: LabelSet) -> Any:
    """Logistic regression, one for each label of several, or ridge regression of numbers."""
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.multiclass import OneVsRestClassifier

    if label_set.kind == "number":
        return Ridge()
    logistic = LogisticRegression(C=STRENGTH, max_iter=MAX_ROUNDS)
    return OneVsRestClassifier(logistic) if label_set.kind == "multi" else logistic


def _neighbours(label_set: LabelSet, num_rows: int) -> Any:
    from sklearn.multiclass import OneVsRestClassifier
    from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor

    count = min(NUM_NEIGHBOURS, num_rows)
    if label_set.kind == "number":
        return KNeighborsRegressor(count, weights="distance")
    neighbours = KNeighborsClassifier(count, weights="distance")
    return OneVsRestClassifier(neighbours) if label_set.kind == "multi" else neighbours
