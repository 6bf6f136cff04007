"""A model of texts answers examples: labels with probabilities, numbers, vectors, or rankings.

What a classifier's logits mean (its labels, the thresholds they are given from) is an `Answering`,
which is kept in the tuned model's folder. The classes here satisfy the evaluation room's
`Predictor`, and nothing in them knows how a model was tuned.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from scipy.special import expit, softmax

from luthier.data import Example, LabelKind, Labelled, LabelSet, Pair
from luthier.evaluation import Prediction, label_prediction, normalized, value_prediction
from luthier.models import LABELS_FILE, Encoder, logits_of, vectors_of
from luthier.tokens import Tokenizer, read_texts

T = TypeVar("T")
Numbers = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Reader:
    """A model of texts with its tokenizer."""

    model: Encoder
    tokenizer: Tokenizer
    max_length: int
    budget: int
    """Tokens computed at once."""
    prompts: tuple[str, str] = ("", "")
    """What stands before texts asked with, and texts found."""

    def vectors(
        self,
        texts: Sequence[str],
        *,
        prompt: str = "",
        observe: Callable[[int], None] = lambda done: None,
    ) -> Numbers:
        """Vectors [n, D] float32."""
        return self.vectors_together([(prompt + text, None) for text in texts], observe)

    def vectors_together(
        self,
        texts: Sequence[tuple[str, str | None]],
        observe: Callable[[int], None] = lambda done: None,
    ) -> Numbers:
        """Vectors [n, D] float32 of texts, each by itself or read with another."""
        read = read_texts(self.tokenizer, texts, self.max_length)
        return vectors_of(self.model, [text for text, _ in read], self.budget, observe).numpy()

    def vectors_of_labelled(
        self,
        examples: Sequence[Example],
        observe: Callable[[int], None] = lambda done: None,
    ) -> Numbers:
        """Vectors [n, D] float32 of labelled texts, read as they are learnt from."""
        asked, _ = self.prompts
        texts = [(asked + text, second) for text, second in map(texts_of, examples)]
        return self.vectors_together(texts, observe)

    def logits(
        self,
        texts: Sequence[tuple[str, str | None]],
        observe: Callable[[int], None] = lambda done: None,
    ) -> Numbers:
        """A classifier's logits [n, C] of texts, each by itself or with another."""
        read = read_texts(self.tokenizer, texts, self.max_length)
        return logits_of(self.model, [text for text, _ in read], self.budget, observe).numpy()


@dataclass(frozen=True)
class Answering:
    """What a classifier's logits mean."""

    kind: LabelKind
    names: tuple[str, ...]
    thresholds: tuple[float, ...] = ()
    """Probability from which each of several labels is given; chosen on the validation rows."""
    temperature: float = 1.0
    """What the logits were divided by on the validation rows; it is part of the head's weights."""
    reads_pairs: bool = False
    """Whether it answers about two texts that are read together."""

    @property
    def label_set(self) -> LabelSet:
        """The labels, without counts."""
        return LabelSet(self.kind, self.names, ())

    @property
    def num_outputs(self) -> int:
        """Logits of the head."""
        return max(1, len(self.names))

    def probabilities(self, logits: Numbers) -> npt.NDArray[np.float64]:
        """[n, C] in float64."""
        wide = logits.astype(np.float64)
        found: npt.NDArray[np.float64] = expit(wide) if self.kind == "multi" else softmax(wide, 1)
        return found

    def predictions(self, ids: Sequence[str], logits: Numbers) -> list[Prediction]:
        """Answers of rows with these ids."""
        if self.kind == "number":
            return [value_prediction(i, float(row[0])) for i, row in zip(ids, logits, strict=True)]
        shares = self.probabilities(logits)
        return [
            label_prediction(i, self.label_set, row, self.thresholds)
            for i, row in zip(ids, shares, strict=True)
        ]

    def write(self, folder: Path) -> None:
        """Keep it beside the model's weights."""
        (folder / LABELS_FILE).write_text(json.dumps(asdict(self), indent=1), encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> "Answering | None":
        """What a folder's classifier answers; None for a model of vectors."""
        file = folder / LABELS_FILE
        if not file.is_file():
            return None
        content = json.loads(file.read_text(encoding="utf-8"))
        return cls(
            content["kind"],
            tuple(content["names"]),
            tuple(content["thresholds"]),
            content["temperature"],
            content["reads_pairs"],
        )


@dataclass(frozen=True)
class ClassPredictor:
    """A classifier asked for labels or numbers."""

    name: str
    reader: Reader
    answering: Answering
    observe: Callable[[int, int], None] = lambda done, total: None

    def predict(self, examples: Sequence[Example]) -> list[Prediction]:
        """One prediction per example, in order."""
        texts = [texts_of(example) for example in examples]
        logits = self.reader.logits(texts, lambda done: self.observe(done, len(texts)))
        return self.answering.predictions([example.id for example in examples], logits)


def texts_of(example: Example) -> tuple[str, str | None]:
    """The text of an example, and the one that is read with it."""
    assert isinstance(example, Labelled), "a classifier's rows are labelled"
    return example.text, example.second


@dataclass(frozen=True)
class SimilarityPredictor:
    """How alike the two texts of each pair are, by the cosine of their vectors."""

    name: str
    reader: Reader

    def predict(self, examples: Sequence[Example]) -> list[Prediction]:
        """One prediction per pair, in order."""
        pairs = [example for example in examples if isinstance(example, Pair)]
        asked, found = self.reader.prompts
        first = normalized(self.reader.vectors([p.anchor for p in pairs], prompt=asked))
        second = normalized(self.reader.vectors([p.positive for p in pairs], prompt=found))
        cosines = (first * second).sum(1)
        return [value_prediction(p.id, float(x)) for p, x in zip(pairs, cosines, strict=True)]


@dataclass(frozen=True)
class RankingPredictor:
    """Finds texts of a collection by their vectors."""

    name: str
    reader: Reader
    texts: dict[str, str]
    depth: int = 100
    observe: Callable[[int, int], None] = lambda done, total: None

    def predict(self, examples: Sequence[Example]) -> list[Prediction]:
        """The nearest texts of each query, best first."""
        asked, found = self.reader.prompts
        names = tuple(self.texts)
        total = len(names) + len(examples)
        passages = normalized(
            self.reader.vectors(
                list(self.texts.values()), prompt=found,
                observe=lambda done: self.observe(done, total),
            )
        )  # fmt: skip
        queries = normalized(
            self.reader.vectors([e.prompt[0].content for e in examples], prompt=asked)
        )
        predictions = []
        for chosen in in_parts(range(len(examples)), 256):
            scores = queries[list(chosen)] @ passages.T
            for i, row in zip(chosen, scores, strict=True):
                best = np.argsort(-row, kind="stable")[: self.depth]
                ranking = tuple(names[j] for j in best)
                text = self.texts[ranking[0]]
                predictions.append(Prediction(examples[i].id, text, True, 0, ranking=ranking))
        return predictions


@dataclass(frozen=True)
class NeighbourPredictor:
    """The label that most of the nearest training rows have, for vectors learnt from labels."""

    name: str
    reader: Reader
    train: tuple[Labelled, ...]
    label_set: LabelSet
    num_neighbours: int = 5

    def predict(self, examples: Sequence[Example]) -> list[Prediction]:
        """One prediction per example, in order."""
        from sklearn.neighbors import KNeighborsClassifier

        place = {name: i for i, name in enumerate(self.label_set.names)}
        known, asked = (
            normalized(self.reader.vectors_of_labelled(rows)) for rows in (self.train, examples)
        )
        count = min(self.num_neighbours, len(self.train))
        neighbours = KNeighborsClassifier(count, weights="distance")
        neighbours.fit(known, [place[example.labels[0]] for example in self.train])
        shares = np.zeros((len(examples), self.label_set.num_labels))
        shares[:, neighbours.classes_] = neighbours.predict_proba(asked)
        return [
            label_prediction(example.id, self.label_set, row)
            for example, row in zip(examples, shares, strict=True)
        ]


def in_parts(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of at most so many neighbours."""
    rest = iter(items)
    while part := list(islice(rest, size)):
        yield part
