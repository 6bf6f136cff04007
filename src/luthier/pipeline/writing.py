"""The work of methods whose models write: chats, preferences, raw texts."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from luthier.data import Chat
from luthier.evaluation import (
    ALONE,
    AnyScorer,
    Kind,
    Predictor,
    Prompt,
    SystemResult,
    choose_shots,
)
from luthier.models import LanguageModel, save_adapter, save_model
from luthier.pipeline.judging import scorers_of
from luthier.pipeline.learning import Circumstances, learn
from luthier.pipeline.predictors import ZERO_SHOT, LocalPredictor
from luthier.pipeline.preparing import Prepared
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

    @cached_property
    def scorers(self) -> tuple[AnyScorer, ...]:
        """Judges of answers."""
        return scorers_of(self.prepared.recipe)

    def load(self) -> LanguageModel:
        """The model at the start."""
        return load_start(self.prepared.recipe, self.prepared.source)

    def baselines(self, model: LanguageModel, desk: Desk) -> Iterator[tuple[Predictor, Kind]]:
        """The prompts without training: alone, and with each number of examples."""
        yield self._predictor(ZERO_SHOT, model, desk), "zero_shot"
        if self.prepared.recipe.method.kind == "pretrain":
            return  # a raw text has no prompt to put examples into
        for shots in self._shots():
            name = f"{len(shots)} example{'s' * (len(shots) > 1)} in the prompt"
            yield self._predictor(name, model, desk, Prompt(shots=shots)), "few_shot"

    def _shots(self) -> list[tuple[Chat, ...]]:
        """The examples of each such prompt; as many as there are, where there are fewer."""
        recipe, rows = self.prepared.recipe, self.prepared.train.examples
        found = [
            choose_shots(rows, wanted, recipe.training.seed) for wanted in recipe.evaluation.shots
        ]
        return [shots for shots in {len(shots): shots for shots in found}.values() if shots]

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
