"""A model in this process, to be asked with any prompt: a run's, or one that was never tuned."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from luthier.evaluation import ALONE, Prompt
from luthier.models import (
    LanguageModel,
    Sampling,
    choose_device,
    default_cache,
    load_model,
    precision,
    probe_devices,
    resolve_source,
)
from luthier.pipeline.events import Answered, Event
from luthier.pipeline.opening import find_run, open_model
from luthier.pipeline.predictors import LocalPredictor
from luthier.pipeline.starting import EARLIER
from luthier.recipe import Model, Runtime, settled
from luthier.runs import num_cores
from luthier.tokens import Tokenizer

LOSS_TOKENS = 4096
"""Tokens computed at once for losses, where no recipe says."""


@dataclass(frozen=True)
class LocalModel:
    """A loaded model with its tokenizer."""

    model: LanguageModel
    tokenizer: Tokenizer
    loss_tokens: int = LOSS_TOKENS

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
    cache = default_cache() if runtime.cache == "auto" else Path(runtime.cache)
    folder = resolve_source(Model(source=source), cache, observe)
    devices = probe_devices()
    threads = num_cores() if runtime.threads == "auto" else runtime.threads
    device, dtype = runtime.device, runtime.dtype
    if device == "auto":
        device = "cuda" if devices.has_cuda else "cpu"
    if dtype == "auto":
        dtype = "bfloat16" if devices.has_bfloat16 else "float32"
    loaded = load_model(folder.path, dtype=precision(dtype), device=choose_device(device, threads))
    return LocalModel(loaded, Tokenizer.load(folder.path))
