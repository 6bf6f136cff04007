"""General ability is asked for: of the model at the start, and of the tuned one."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from itertools import chain
from math import isfinite
from pathlib import Path

from luthier.data import Text, as_chat
from luthier.errors import EvaluationError
from luthier.evaluation import (
    General,
    GeneralSet,
    Knowledge,
    from_json,
    general_set,
    to_json,
    weigh_general,
)
from luthier.evaluation import question as question_of
from luthier.models import (
    LanguageModel,
    ModelFolder,
    answer_losses,
    choice_likelihoods,
    kl_to_start,
)
from luthier.pipeline.preparing import Prepared
from luthier.pipeline.questions import encode_questions
from luthier.pipeline.recorded import GENERAL, general_of
from luthier.pipeline.starting import continues_adapter, load_start
from luthier.recipe import LoRA, Recipe, settled
from luthier.runs import Run, write_atomically
from luthier.tokens import Encoded, Tokenizer, encode_text
from luthier.training.memory import free_memory, is_out_of_memory

LONGEST_PASSAGE = 512
"""Tokens of a piece of a passage."""

Observe = Callable[[int, int], None]
"""Told how much is done, of how much."""


@dataclass(frozen=True)
class Exam:
    """What is asked of a model besides its task, as ids."""

    asked: GeneralSet
    tokenizer: Tokenizer
    budget: int
    """Tokens computed at once."""

    @cached_property
    def _choices(self) -> list[list[Encoded]]:
        return encode_questions(self.tokenizer, self.asked)

    @cached_property
    def _passages(self) -> list[list[Encoded]]:
        """Each passage in pieces."""
        longest = min(self.tokenizer.context_length or LONGEST_PASSAGE, LONGEST_PASSAGE)
        return [
            encode_text(self.tokenizer, Text(str(i), passage.place, passage.text), longest)
            for i, passage in enumerate(self.asked.passages)
        ]

    def put(self, model: LanguageModel, observe: Observe = lambda done, total: None) -> Knowledge:
        """What a model makes of all of it. Raises EvaluationError where that is no number."""
        total = len(self._choices) + len(self._passages)
        chosen = choice_likelihoods(
            model, self._choices, budget=self.budget, observe=lambda done: observe(done, total)
        )
        pieces = [piece for passage in self._passages for piece in passage]
        losses = iter(answer_losses(model, pieces, budget=self.budget))
        sums = [
            (sum((next(losses) or 0.0) * piece.num_supervised for piece in passage),
             sum(piece.num_supervised for piece in passage))
            for passage in self._passages
        ]  # fmt: skip
        observe(total, total)
        logs = tuple(tuple(each.log for each in own) for own in chosen)
        if not all(map(isfinite, [*chain.from_iterable(logs), *(loss for loss, _ in sums)])):
            raise EvaluationError(
                "likelihoods of general questions are no numbers",
                where="general ability",
                advice="the training has diverged, or the precision is too low: lower "
                "training.learning_rate, or set runtime.dtype: float32",
            )
        return Knowledge(logs, tuple(sums))

    def divergence(self, model: LanguageModel, start: LanguageModel | None) -> float | None:
        """How far a model has moved on the passages; None without any.

        Without a start it is the model without its adapter.
        """
        pieces = [piece for passage in self._passages for piece in passage if piece.spans]
        return kl_to_start(model, pieces, budget=self.budget, start=start) if pieces else None


@dataclass(frozen=True)
class GeneralAbility:
    """What a run asks before and after; what it was told is kept."""

    prepared: Prepared
    run: Run
    observe: Observe
    warn: Callable[[str], None]

    @cached_property
    def _exam(self) -> Exam:
        recipe = self.prepared.recipe
        budget = settled(recipe.training.micro_batch_tokens)
        return Exam(general_set(recipe.evaluation), self.prepared.tokenizer, budget)

    @property
    def _told(self) -> Path:
        """What the start said; to other questions, or in other words, it must be asked again."""
        asked = f"{self._exam.asked.sha256}\0{self.prepared.tokenizer.fingerprint}"
        key = sha256(asked.encode()).hexdigest()[:12]
        return self.run.path("evaluation", f"general-before-{key}.json")

    def before(self, model: LanguageModel) -> None:
        """Ask the model at the start, or remember what it said to another run."""
        if self._told.is_file():
            return
        self._look_for_learnt()
        kept = self._kept()
        if kept is not None and kept.is_file():
            said = kept.read_text("utf-8")
        else:
            said = to_json(self._exam.put(model, self.observe))
            if kept is not None:
                write_atomically(kept, said)
        write_atomically(self._told, said)

    def after(self, model: LanguageModel) -> General:
        """Ask the tuned model, and compare."""
        found = general_of(self.run)
        if found is not None:
            return found
        before = from_json(self._told.read_text("utf-8"), Knowledge, where=str(self._told))
        after = self._exam.put(model, self.observe)
        evaluation = self.prepared.recipe.evaluation
        found = weigh_general(self._exam.asked, before, after, evaluation, self._moved(model))
        write_atomically(self.run.path(*GENERAL), to_json(found))
        return found

    def _moved(self, model: LanguageModel) -> float | None:
        """How far the model has moved; unknown where there is no room for its start beside it."""
        try:
            start = start_of(self.prepared.recipe, self.prepared.source)
            return self._exam.divergence(model, start)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        free_memory()
        self.warn("how far the model has moved on general texts is unknown: memory ran out")
        return None

    def _look_for_learnt(self) -> None:
        """Warn of questions that training rows ask."""
        rows = (e for e in self.prepared.train.examples if not isinstance(e, Text))
        learnt = {_plain(question_of(as_chat(row))) for row in rows}
        seen = sum(_plain(each.question) in learnt for each in self._exam.asked.questions)
        if seen:
            self.warn(f"{seen} of the general questions are asked by training rows, too")

    def _kept(self) -> Path | None:
        """Where answers of this start to these questions are, for all runs of the workspace."""
        recipe, fingerprint = self.prepared.recipe, self.prepared.tokenizer.fingerprint
        if not fingerprint:
            return None
        runtime, tuning = recipe.runtime, recipe.tuning
        quantized = tuning.quantize if isinstance(tuning, LoRA) else "none"
        earlier = "continue" if continues_adapter(recipe, self.prepared.source) else "merge"
        config = (self.prepared.source.path / "config.json").read_text("utf-8")
        parts = (
            self.prepared.source.sha256, config, fingerprint, self._exam.asked.sha256,
            runtime.dtype, runtime.device, quantized, earlier,
        )  # fmt: skip
        key = sha256("\0".join(map(str, parts)).encode()).hexdigest()
        return runtime.workspace / "general" / f"{key}.json"


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


def start_of(recipe: Recipe, source: ModelFolder) -> LanguageModel | None:
    """The model at the start; None where it is the tuned one without its adapter."""
    if isinstance(recipe.tuning, LoRA) and not continues_adapter(recipe, source):
        return None
    return load_start(recipe, source)
