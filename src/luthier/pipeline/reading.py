"""The work of methods whose models read whole texts: classifiers and embeddings."""

import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.lib import format as npy

from luthier.data import Example, Labelled, Pair
from luthier.evaluation import (
    AnyScorer,
    BM25Predictor,
    Kind,
    Predictor,
    Suspect,
    SystemResult,
    TfidfSearchPredictor,
    TfidfSimilarityPredictor,
    class_details,
    draw_map,
    find_suspects,
    joined,
    label_baselines,
    slices_of,
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
from luthier.pipeline.cards import CARD, card_of
from luthier.pipeline.encoding import ReadEncoding, text_limit
from luthier.pipeline.events import Note
from luthier.pipeline.judging import scorers_of
from luthier.pipeline.learning import Circumstances
from luthier.pipeline.preparing import Prepared
from luthier.pipeline.read_learning import answering_of, learn_to_read
from luthier.pipeline.work import TUNED, Desk
from luthier.recipe import Classify, Recipe, settled
from luthier.report import TextDetails
from luthier.runs import Run, atomic_folder, write_atomically
from luthier.training import Outcome

UNTUNED = "model at the start"
MAX_DOUBTED = 10**6
"""Training rows times labels up to which labels are doubted: it takes minutes beyond."""
VECTORS, SUSPECTS = "vectors-before.npy", "suspects.json"


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
        return Reader(
            model,
            encoding.tokenizer,
            text_limit(self._recipe, encoding.limit),
            settled(self._recipe.training.micro_batch_tokens),
            encoding.prompts,
        )

    def baselines(self, model: Encoder, desk: Desk) -> Iterator[tuple[Predictor, Kind]]:
        """Simple methods on the same rows, and the vectors of the model at the start."""
        reader, labels = self.reader(model), self.prepared.labels
        if self.prepared.collection is not None:
            texts = self.prepared.collection.texts
            yield BM25Predictor(texts), "baseline"
            yield TfidfSearchPredictor(texts), "baseline"
            observe = desk.answered(UNTUNED)
            yield RankingPredictor(UNTUNED, reader, texts, observe=observe), "baseline"
        elif labels is None:
            train_pairs = [e for e in self.prepared.train.examples if isinstance(e, Pair)]
            yield TfidfSimilarityPredictor(train_pairs), "baseline"
            yield SimilarityPredictor(UNTUNED, reader), "baseline"
        else:
            train = [e for e in self.prepared.train.examples if isinstance(e, Labelled)]
            self._keep_vectors(reader, desk)
            remembered = _Remembered(reader, desk.answered(UNTUNED))
            for predictor in label_baselines(train, labels, remembered.embed):
                yield predictor, "baseline"
            self._keep_suspects(train, remembered, desk)

    def _keep_vectors(self, reader: Reader, desk: Desk) -> None:
        """Vectors of the held-out rows before tuning, for the map; kept for a resumed run."""
        place = desk.run.path("evaluation", VECTORS)
        if not place.is_file():
            found = io.BytesIO()
            npy.write_array(found, _vectors(reader, self.prepared.test, desk.answered(UNTUNED)))
            write_atomically(place, found.getvalue())

    def _keep_suspects(
        self, train: Sequence[Labelled], remembered: "_Remembered", desk: Desk
    ) -> None:
        """Rows with doubtful labels, found before the model knows them; kept for the report."""
        place, labels = desk.run.path("evaluation", SUSPECTS), self.prepared.labels
        if labels is None or place.is_file():
            return
        found: Sequence[Suspect] = ()
        if len(train) * labels.num_labels <= MAX_DOUBTED:
            desk.observe(Note("look for doubtful labels"))
            vectors = remembered.embed([joined(example) for example in train])
            found = find_suspects(train, vectors, labels, seed=self._recipe.training.seed)
        write_atomically(place, json.dumps([asdict(suspect) for suspect in found]))

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
        return SimilarityPredictor(TUNED, reader)

    def general(self, desk: Desk) -> None:
        """Nothing: what it is made into writes no answers."""

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
            max_length=text_limit(self._recipe, encoding.limit),
        )

        with atomic_folder(run.path("model")) as folder:
            save_encoder(
                model, folder, self.prepared.source.path, answering.names if answering else ()
            )
            if answering is not None:
                answering.write(folder)
            (folder / CARD).write_text(card_of(self.prepared, run), encoding="utf-8")

    def details(
        self, model: Encoder, systems: list[SystemResult], desk: Desk
    ) -> TextDetails | None:
        """Slices, labels one by one, the map before and after, and rows with doubtful labels."""
        labels, evaluation = self.prepared.labels, self._recipe.evaluation
        tested, seed = self.prepared.test, self._recipe.training.seed
        chosen = [systems[-1], *_strongest(systems, self.scorers)]
        # Whether a row is right is told slice by slice where there is a right, else the primary.
        told = next((s for s in self.scorers if s.metric.kind == "pass_fail"), self.scorers[0])
        slices = tuple(slices_of(s, told, tested, evaluation, seed=seed) for s in chosen)
        if labels is None or labels.kind == "number":
            return TextDetails(slices=slices)
        found = tuple(
            class_details(s.name, s.predictions, tested, labels, evaluation, seed=seed)
            for s in chosen
        )
        before = np.load(desk.run.path("evaluation", VECTORS), allow_pickle=False)
        reader = self.reader(model)
        class_map = None
        if labels.kind == "single":
            class_map = draw_map(
                [e.id for e in tested],
                [e.labels[0] for e in tested if isinstance(e, Labelled)],
                (before, _vectors(reader, tested, desk.answered(TUNED)).astype(np.float64)),
                frozenset(labels.names),
                evaluation,
                seed=seed,
            )
        suspects = json.loads(desk.run.path("evaluation", SUSPECTS).read_text("utf-8"))
        return TextDetails(slices, found, class_map, tuple(Suspect(**each) for each in suspects))


def _vectors(
    reader: Reader, examples: Sequence[Example], observe: Callable[[int, int], None]
) -> Numbers:
    """Vectors [n, D] of labelled texts, telling how many are done."""
    return reader.vectors_of_labelled(examples, lambda done: observe(done, len(examples)))


def _strongest(systems: Sequence[SystemResult], scorers: Sequence[AnyScorer]) -> list[SystemResult]:
    found = strongest_baseline(systems, [scorer.metric for scorer in scorers])
    return [] if found is None else [found]


@dataclass
class _Remembered:
    """Vectors of texts, computed once: several baselines ask for the same ones."""

    reader: Reader
    observe: Callable[[int, int], None]
    known: dict[tuple[str, ...], Numbers] = field(default_factory=dict)

    def embed(self, texts: Sequence[str]) -> Any:
        key = tuple(texts)
        if key not in self.known:
            self.known[key] = self.reader.vectors(
                texts, observe=lambda done: self.observe(done, len(texts))
            )
        return self.known[key].astype(np.float64)
