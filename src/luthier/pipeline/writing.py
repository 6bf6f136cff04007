"""The work of methods whose models write: chats, preferences, raw texts."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from luthier.data import Example
from luthier.evaluation import (
    ALONE,
    AnyScorer,
    Kind,
    Predictor,
    Prompt,
    SystemResult,
    run_system,
)
from luthier.models import LanguageModel, save_adapter, save_model
from luthier.pipeline.events import Event
from luthier.pipeline.general import GeneralAbility
from luthier.pipeline.judging import scorers_of
from luthier.pipeline.learning import Circumstances, learn
from luthier.pipeline.predictors import ZERO_SHOT, LocalPredictor
from luthier.pipeline.preparing import Prepared, measurable
from luthier.pipeline.prompts import best_instructions, ladder, tried_on
from luthier.pipeline.starting import load_start
from luthier.pipeline.work import TUNED, Desk
from luthier.recipe import LoRA, settled
from luthier.report import TextDetails
from luthier.runs import Run, atomic_folder
from luthier.training import Outcome


@dataclass(frozen=True)
class WritingWork:
    """Tunes a model that writes, and compares it with prompts."""

    prepared: Prepared
    observe: Callable[[Event], None] = lambda event: None

    @cached_property
    def scorers(self) -> tuple[AnyScorer, ...]:
        """Judges of answers."""
        return scorers_of(self.prepared.recipe, items=self.prepared.items, observe=self.observe)

    def load(self) -> LanguageModel:
        """The model at the start."""
        return load_start(self.prepared.recipe, self.prepared.source)

    def baselines(self, model: LanguageModel, desk: Desk) -> Iterator[tuple[Predictor, Kind]]:
        """The prompts without training: alone, with examples, passages, other instructions."""
        recipe = self.prepared.recipe
        if recipe.method.kind == "pretrain":
            yield self._predictor(ZERO_SHOT, model, desk), "zero_shot"
            return  # a raw text has no prompt to put anything into
        # What is wrong with the others is said before anything is asked.
        prompts = ladder(recipe, self.prepared.train.examples)
        tried = tried_on(recipe, measurable(self.prepared.validation.examples))
        yield self._predictor(ZERO_SHOT, model, desk), "zero_shot"
        for name, prompt in prompts:
            yield self._predictor(name, model, desk, prompt), "few_shot"
        chosen = self._best_instructions(model, desk, tried)
        if chosen is not None:
            yield self._predictor(chosen[0], model, desk, chosen[1]), "few_shot"

    def _best_instructions(
        self, model: LanguageModel, desk: Desk, rows: Sequence[Example]
    ) -> tuple[str, Prompt] | None:
        recipe, scorer = self.prepared.recipe, self.scorers[0]

        def ask(prompt: Prompt) -> float | None:
            predictor = self._predictor("instructions tried", model, desk, prompt)
            result = run_system(predictor, "zero_shot", rows, [scorer], recipe.evaluation)
            return result.estimates[scorer.metric.name].value

        place = desk.run.path("evaluation", "instructions-tried.json")
        return best_instructions(recipe, self.prepared.train.examples, ask, place, scorer.metric)

    def tuned(self, model: LanguageModel, desk: Desk) -> Predictor:
        """The tuned model with its instructions alone."""
        return self._predictor(TUNED, model, desk)

    def _predictor(
        self, name: str, model: LanguageModel, desk: Desk, prompt: Prompt = ALONE
    ) -> LocalPredictor:
        recipe = self.prepared.recipe
        return LocalPredictor(
            name,
            model,
            self.prepared.tokenizer,
            max_new_tokens=settled(recipe.evaluation.max_new_tokens),
            loss_tokens=settled(recipe.training.micro_batch_tokens),
            text_tokens=settled(recipe.training.max_length),
            prompt=prompt,
            observe=desk.answered(name),
        )

    def learn(
        self, model: LanguageModel, circumstances: Circumstances
    ) -> tuple[Outcome, LanguageModel]:
        """Train as the recipe says."""
        return learn(model, self.prepared, circumstances)

    def general(self, desk: Desk) -> GeneralAbility | None:
        """Questions and texts, unless the recipe wants none."""
        if self.prepared.recipe.evaluation.general == "none":
            return None
        told = desk.answered("general ability")
        return GeneralAbility(self.prepared, desk.run, told, desk.warn)

    def save(self, model: LanguageModel, run: Run) -> None:
        """Write what learnt into the run's folder: an adapter, or the whole model."""
        source = self.prepared.source.path
        is_adapter = isinstance(self.prepared.recipe.tuning, LoRA)
        with atomic_folder(run.path("adapter" if is_adapter else "model")) as folder:
            if is_adapter:
                save_adapter(model, folder)
            else:
                save_model(model, folder, source)

    def details(
        self, model: LanguageModel, systems: list[SystemResult], desk: Desk
    ) -> TextDetails | None:
        """Nothing besides the answers."""
        return None
