"""The model a run starts from: a source as the recipe names it, or what an earlier run made.

`run:NAME` means the newest finished run of that name (or id, or folder): its whole model where all
weights learnt, else its own start with its adapter on top.
"""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from luthier.errors import ConfigError
from luthier.models import (
    LanguageModel,
    ModelFolder,
    check_encoder_tuning,
    check_tuning,
    choose_device,
    default_cache,
    encoder_outline,
    load_adapter,
    load_model,
    merge_adapter,
    outline,
    precision,
    resolve_source,
)
from luthier.pipeline.recorded import resolved_recipe
from luthier.recipe import TEXT_METHODS, LoRA, Recipe, settled
from luthier.runs import Run, Workspace

EARLIER = "run:"


def resolve_start(recipe: Recipe, observe: Callable[[str], None]) -> ModelFolder:
    """Bring the model of a recipe to local folders.

    Raises ModelError, ConfigError, StorageError.
    """
    source = recipe.model.source
    if not source.startswith(EARLIER):
        return resolve_source(recipe.model, cache_folder(recipe), observe)
    run = _earlier_run(recipe.runtime.workspace, source.removeprefix(EARLIER))
    made_by = resolved_recipe(run)
    if run.path("model").is_dir():
        whole = recipe.model.model_copy(update={"source": str(run.path("model"))})
        found = resolve_source(whole, cache_folder(recipe), observe)
        return replace(found, source=source, revision=run.id, kind="run")
    start = resolve_start(made_by, observe)
    adapter = run.path("adapter")
    continued = isinstance(made_by.tuning, LoRA) and made_by.tuning.earlier == "continue"
    earlier = start.adapters[:-1] if continued else start.adapters
    digest = hashlib.sha256(f"{start.sha256}\0".encode())
    digest.update((adapter / "adapter_model.safetensors").read_bytes())
    return replace(
        start,
        source=source,
        revision=run.id,
        kind="run",
        sha256=digest.hexdigest(),
        adapters=(*earlier, adapter),
    )


def cache_folder(recipe: Recipe) -> Path:
    """Where fetched and converted models are kept."""
    return default_cache() if recipe.runtime.cache == "auto" else recipe.runtime.cache


def _earlier_run(workspace: Path, wanted: str) -> Run:
    opened = Workspace.open(workspace)
    try:
        named = [r for r in opened.list() if r.record.name == wanted]
        run = next((r for r in named if r.record.status == "finished"), None) or opened.find(wanted)
    finally:
        opened.close()
    if run.record.status != "finished":
        raise ConfigError(
            f"is {run.record.status}, so it has made nothing to start from",
            where=f"{EARLIER}{wanted}",
            advice="finish it first: run luthier train with its recipe again",
        )
    return run


def check_start(recipe: Recipe, source: ModelFolder) -> None:
    """Raise what `load_start` would say of a resolved recipe's tuning, without loading weights."""
    if recipe.method.kind in TEXT_METHODS:
        check_encoder_tuning(encoder_outline(source.path), recipe.tuning)
    elif not continues_adapter(recipe, source):
        allowed = bool(recipe.model.remote_code)
        check_tuning(outline(source.path, allow_remote_code=allowed), recipe.tuning)


def continues_adapter(recipe: Recipe, source: ModelFolder) -> bool:
    """Whether an earlier run's adapter learns on, beside the weights it was not merged into."""
    is_wanted = isinstance(recipe.tuning, LoRA) and recipe.tuning.earlier == "continue"
    return is_wanted and bool(source.adapters)


def load_start(recipe: Recipe, source: ModelFolder) -> LanguageModel:
    """The model a run starts from, loaded as a resolved recipe says.

    Adapters of earlier runs are merged; the last one stays trainable when it is to go on learning.
    """
    runtime, tuning = recipe.runtime, recipe.tuning
    goes_on = continues_adapter(recipe, source)
    merged = source.adapters[:-1] if goes_on else source.adapters
    if merged and isinstance(tuning, LoRA) and tuning.quantize != "none":
        raise ConfigError(
            "an earlier adapter cannot be merged into weights of 4 bits without losing most of it",
            where="tuning.quantize",
            accepted="none, or tuning.earlier: continue where there is one earlier adapter",
        )
    model = load_model(
        source.path,
        dtype=precision(settled(runtime.dtype)),
        device=choose_device(settled(runtime.device), settled(runtime.threads)),
        allow_remote_code=bool(recipe.model.remote_code),
        quantize=tuning.quantize if isinstance(tuning, LoRA) else "none",
    )
    for adapter in merged:
        merge_adapter(model, adapter)
    if goes_on:
        model.network = load_adapter(model.base, source.adapters[-1], is_trainable=True)
        model.network.eval()
    else:
        check_tuning(model.base, tuning)
    return model
