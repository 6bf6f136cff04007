"""The work of methods whose models read whole texts: classifiers and embeddings."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy

from luthier.data import Example, Labelled, Pair, Text
from luthier.evaluation import (
    AnyScorer,
    BM25Predictor,
    Kind,
    Predictor,
    SystemResult,
    class_details,
    draw_map,
    find_suspects,
    label_baselines,
    strongest_baseline,
)
from luthier.models import Encoder, choose_device, load_encoder, precision, save_encoder
from luthier.pipeline.asking import (
    Answering,
    ClassPredictor,
    NeighbourPredictor,
    Numbers,
    RankingPredictor,
    Reader,
    SimilarityPredictor,
)
from luthier.pipeline.encoding import ReadEncoding
from luthier.pipeline.judging import scorers_of
from luthier.pipeline.learning import Circumstances
from luthier.pipeline.preparing import Prepared
from luthier.pipeline.read_learning import answering_of, learn_to_read
from luthier.pipeline.work import TUNED, Desk, replace_folder
from luthier.recipe import Classify, Recipe, settled
from luthier.report import TextDetails
from luthier.runs import Run
from luthier.training import Outcome

UNTUNED = "model at the start"
MAX_SUSPECT_ROWS = 20_000
"""Training rows up to which labels are doubted: cross-validation takes minutes beyond."""
VECTORS = "vectors-before.npy"


@dataclass
class ReadingWork:
    """Tunes a model of texts, and compares it with simple methods."""

    prepared: Prepared
    answering: Answering | None = field(init=False)

    def __post_init__(self) -> None:
        self.answering = answering_of(self.prepared)

    @property
    def _recipe(self) -> Recipe:
        return self.prepared.recipe

    @cached_property
    def scorers(self) -> tuple[AnyScorer, ...]:
        """Judges of labels, numbers or rankings."""
        prepared = self.prepared
        return scorers_of(self._recipe, prepared.test, prepared.labels, prepared.collection)

    def load(self) -> Encoder:
        """The model at the start, with a head that has learnt nothing."""
        runtime, method = self._recipe.runtime, self._recipe.method
        return load_encoder(
            self.prepared.source.path,
            dtype=precision(settled(runtime.dtype)),
            device=choose_device(settled(runtime.device), settled(runtime.threads)),
            answers=self.answering.num_outputs if self.answering else 0,
            head="own" if isinstance(method, Classify) and method.head == "own" else "pooled",
            seed=self._recipe.training.seed,
        )

    def reader(self, model: Encoder) -> Reader:
        """The model as it is asked."""
        encoding = self.prepared.encoding
        assert isinstance(encoding, ReadEncoding), "texts are read"
        limit = settled(self._recipe.training.max_length)
        return Reader(
            model,
            encoding.tokenizer,
            max(limit, min(encoding.limit or limit, 512)),
            settled(self._recipe.training.micro_batch_tokens),
            encoding.prompts,
        )

    def baselines(self, model: Encoder, desk: Desk) -> Iterator[tuple[Predictor, Kind]]:
        """Simple methods on the same rows, and the vectors of the model at the start."""
        reader, labels = self.reader(model), self.prepared.labels
        if self.prepared.collection is not None:
            texts = self.prepared.collection.texts
            yield BM25Predictor(texts), "baseline"
            observe = desk.answered(UNTUNED)
            yield RankingPredictor(UNTUNED, reader, texts, observe=observe), "baseline"
        elif labels is None:
            yield SimilarityPredictor(UNTUNED, reader, desk.answered(UNTUNED)), "baseline"
        else:
            train = [e for e in self.prepared.train.examples if isinstance(e, Labelled)]
            self._keep_vectors(reader, desk.run)
            remembered = _Remembered(reader)
            for predictor in label_baselines(train, labels, remembered.embed):
                yield predictor, "baseline"

    def _keep_vectors(self, reader: Reader, run: Run) -> None:
        """Vectors of the held-out rows before tuning, for the map; kept for a resumed run."""
        place = run.path("evaluation", VECTORS)
        if not place.is_file():
            place.parent.mkdir(parents=True, exist_ok=True)
            with place.open("wb") as file:
                npy.write_array(file, self._test_vectors(reader))

    def _test_vectors(self, reader: Reader) -> Numbers:
        return reader.vectors(["\n".join(_texts(e)) for e in self.prepared.test])

    def learn(self, model: Encoder, circumstances: Circumstances) -> tuple[Outcome, Encoder]:
        """Train as the recipe says."""
        outcome, self.answering = learn_to_read(model, self.prepared, self.answering, circumstances)
        return outcome, model

    def tuned(self, model: Encoder, desk: Desk) -> Predictor:
        """The tuned model as the evaluation asks it."""
        reader, observe = self.reader(model), desk.answered(TUNED)
        if self.answering is not None:
            return ClassPredictor(TUNED, reader, self.answering, observe)
        if self.prepared.collection is not None:
            texts = self.prepared.collection.texts
            return RankingPredictor(TUNED, reader, texts, observe=observe)
        if self.prepared.labels is not None:
            train = tuple(e for e in self.prepared.train.examples if isinstance(e, Labelled))
            return NeighbourPredictor(TUNED, reader, train, self.prepared.labels)
        return SimilarityPredictor(TUNED, reader, observe)

    def save(self, model: Encoder, run: Run) -> None:
        """Write the whole model, adapters merged, with what its answers mean."""
        answering = self.answering
        encoding = self.prepared.encoding
        assert isinstance(encoding, ReadEncoding), "texts are read"
        asked, found = encoding.prompts
        prompts = {"query": asked, "document": found} if asked or found else {}
        model.pooling = replace(
            model.pooling,
            prompts={**model.pooling.prompts, **prompts},
            max_length=model.pooling.max_length or settled(self._recipe.training.max_length),
        )

        def write(folder: Path) -> None:
            save_encoder(
                model, folder, self.prepared.source.path, answering.names if answering else ()
            )
            if answering is not None:
                answering.write(folder)

        replace_folder(run.path("model"), write)

    def details(
        self, model: Encoder, systems: list[SystemResult], desk: Desk
    ) -> TextDetails | None:
        """Labels one by one, the map before and after, and rows whose labels are doubtful."""
        labels, evaluation = self.prepared.labels, self._recipe.evaluation
        if labels is None or labels.kind == "number":
            return None
        tested = self.prepared.test
        chosen = [systems[-1], *_strongest(systems, self.scorers)]
        found = tuple(
            class_details(s.name, s.predictions, tested, labels, evaluation.confidence)
            for s in chosen
        )
        before = np.load(desk.run.path("evaluation", VECTORS), allow_pickle=False)
        reader, seed = self.reader(model), self._recipe.training.seed
        class_map = None
        if labels.kind == "single":
            class_map = draw_map(
                [e.id for e in tested],
                [e.labels[0] for e in tested if isinstance(e, Labelled)],
                (before, self._test_vectors(reader).astype(np.float64)),
                frozenset(labels.names),
                evaluation,
                seed=seed,
            )
        return TextDetails(found, class_map, self._suspects(reader))

    def _suspects(self, reader: Reader) -> Any:
        train = [e for e in self.prepared.train.examples if isinstance(e, Labelled)]
        labels = self.prepared.labels
        if labels is None or len(train) > MAX_SUSPECT_ROWS:
            return ()
        vectors = reader.vectors(["\n".join(example.texts) for example in train])
        return find_suspects(
            train, vectors.astype(np.float64), labels, seed=self._recipe.training.seed
        )


def _texts(example: Example) -> Sequence[str]:
    if isinstance(example, Labelled | Pair):
        return example.texts
    return (example.text,) if isinstance(example, Text) else (example.prompt[0].content,)


def _strongest(systems: Sequence[SystemResult], scorers: Sequence[AnyScorer]) -> list[SystemResult]:
    found = strongest_baseline(systems, [scorer.metric for scorer in scorers])
    return [] if found is None else [found]


@dataclass
class _Remembered:
    """Vectors of texts, computed once: several baselines ask for the same ones."""

    reader: Reader
    known: dict[tuple[str, ...], Numbers] = field(default_factory=dict)

    def embed(self, texts: Sequence[str]) -> Any:
        key = tuple(texts)
        if key not in self.known:
            self.known[key] = self.reader.vectors(texts)
        return self.known[key].astype(np.float64)
