"""A model in this process, to be asked with any prompt: a run's, or one that was never tuned."""

from collections.abc import Callable
from dataclasses import dataclass

from luthier.evaluation import ALONE, Prompt
from luthier.models import (
    LanguageModel,
    Sampling,
    load_model,
)
from luthier.pipeline.events import Answered, Event
from luthier.pipeline.opening import find_run, open_model
from luthier.pipeline.placing import TOKENS_AT_ONCE, place
from luthier.pipeline.predictors import LocalPredictor
from luthier.pipeline.starting import EARLIER
from luthier.recipe import Runtime, settled
from luthier.tokens import Tokenizer


@dataclass(frozen=True)
class LocalModel:
    """A loaded model with its tokenizer."""

    model: LanguageModel
    tokenizer: Tokenizer
    loss_tokens: int = TOKENS_AT_ONCE

    def predictor(
        self,
        name: str,
        max_new_tokens: int,
        prompt: Prompt = ALONE,
        observe: Callable[[Event], None] = lambda event: None,
        sampling: Sampling | None = None,
    ) -> LocalPredictor:
        """The model asked with a prompt."""
        return LocalPredictor(
            name, self.model, self.tokenizer, max_new_tokens, self.loss_tokens, prompt=prompt,
            sampling=sampling, observe=lambda done, total: observe(Answered(name, done, total)),
        )  # fmt: skip


def open_local(
    source: str,
    runtime: Runtime,
    observe: Callable[[str], None] = lambda note: None,
) -> LocalModel:
    """Load a model as a recipe names it, or a finished run's (run:NAME).

    Raises ConfigError, ModelError.
    """
    if source.startswith(EARLIER):
        tuned = open_model(find_run(runtime.workspace, source.removeprefix(EARLIER)))
        at_once = settled(tuned.recipe.training.micro_batch_tokens)
        return LocalModel(tuned.model, tuned.tokenizer, at_once)
    folder, device, dtype = place(source, runtime, observe)
    return LocalModel(load_model(folder, dtype=dtype, device=device), Tokenizer.load(folder))
