"""General ability is asked for: of the model at the start, and of the tuned one."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path

from luthier.data import Chat, Message, Place, Text, as_chat
from luthier.evaluation import (
    General,
    GeneralSet,
    Knowledge,
    Question,
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
from luthier.pipeline.starting import continues_adapter, load_start
from luthier.recipe import LoRA, Recipe, settled
from luthier.runs import Run, write_atomically
from luthier.tokens import IGNORED, Encoded, Tokenizer, encode_chat, encode_text

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
        """Each question with each of its choices; nothing where one is too long for the model."""
        longest = self.tokenizer.context_length
        found = []
        for question in self.asked.questions:
            own = [_encoded(self.tokenizer, question, choice) for choice in question.choices]
            fits = longest is None or max(each.num_tokens for each in own) <= longest
            found.append(own if fits else [])
        return found

    @cached_property
    def _passages(self) -> list[list[Encoded]]:
        """Each passage in pieces."""
        longest = min(self.tokenizer.context_length or LONGEST_PASSAGE, LONGEST_PASSAGE)
        place = Place("general", 1)
        return [
            encode_text(self.tokenizer, Text(str(i), place, passage.text), longest)
            for i, passage in enumerate(self.asked.passages)
        ]

    def put(self, model: LanguageModel, observe: Observe = lambda done, total: None) -> Knowledge:
        """What a model makes of all of it."""
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
        return Knowledge(tuple(tuple(each.log for each in own) for own in chosen), tuple(sums))

    def divergence(self, model: LanguageModel, start: LanguageModel | None) -> float | None:
        """How far a model has moved on the passages; None without any.

        Without a start it is the model without its adapter.
        """
        pieces = [piece for passage in self._passages for piece in passage if piece.spans]
        return kl_to_start(model, pieces, budget=self.budget, start=start) if pieces else None


def _encoded(tokenizer: Tokenizer, question: Question, choice: str) -> Encoded:
    """A question with one answer: as a chat, or as text for a model that was not made for chats."""
    if tokenizer.chat_template is not None:
        turns = (Message("user", question.question), Message("assistant", choice))
        return encode_chat(tokenizer, Chat("", Place("general", 1), turns), "last")
    asked = tokenizer.encode(f"Question: {question.question}\nAnswer:").ids
    ids = [*asked, *tokenizer.encode(f" {choice}").ids]
    labels = [*[IGNORED] * len(asked), *ids[len(asked) :]]
    return Encoded("", ids, labels, ((len(asked), len(ids)),))


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
        return self.run.path("evaluation", "general-before.json")

    def before(self, model: LanguageModel) -> None:
        """Ask the model at the start, or remember what it said to another run."""
        if self._told.is_file():
            return
        self._look_for_learnt()
        kept = self._kept()
        if kept is None or not kept.is_file():
            said = to_json(self._exam.put(model, self.observe))
            for place in (kept,) if kept else ():
                write_atomically(place, said)
        else:
            said = kept.read_text("utf-8")
        write_atomically(self._told, said)

    def after(self, model: LanguageModel) -> General:
        """Ask the tuned model, and compare."""
        place = self.run.path("evaluation", "general.json")
        if place.is_file():
            return from_json(place.read_text("utf-8"), General, where=str(place))
        before = from_json(self._told.read_text("utf-8"), Knowledge, where=str(self._told))
        after = self._exam.put(model, self.observe)
        evaluation = self.prepared.recipe.evaluation
        moved = self._exam.divergence(model, start_of(self.prepared.recipe, self.prepared.source))
        found = weigh_general(self._exam.asked, before, after, evaluation, moved)
        write_atomically(place, to_json(found))
        return found

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
        parts = (
            self.prepared.source.sha256, fingerprint, self._exam.asked.sha256, runtime.dtype,
            runtime.device, quantized, earlier,
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
