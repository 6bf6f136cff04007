"""How much memory a run needs, before anything of it is loaded: somewhat more than was measured.

Of a model only the headers of its files are read. Measured peaks that this covers are in
benchmarks/results: LoRA of SmolLM2-135M 1.9 to 2.4 GiB where 2.6 are told, all its weights 3.9 of
4.3, a classifier of MiniLM 0.8 of 2.5.
"""

from pathlib import Path

from luthier.models import count_weights, default_cache, probe_devices, resolve_source
from luthier.models.sources import is_at_hand
from luthier.models.sources.folders import read_config
from luthier.recipe import LoRA, Recipe
from luthier.runs import memory_bytes

PROCESS = 7 * 2**27
"""Bytes of a process that has loaded no model: Python, torch and the others."""
FROZEN, LEARNING = 5, 18
"""Bytes for each weight: in float32 with a spare for what is loaded; with gradient, both moments,
and the best weights so far."""
ACTIVATIONS = 40
"""Bytes kept for backward for each token, layer and number of its hidden state."""
TOKENS = {False: 2048, True: 16384}
"""Computed at once where the recipe leaves it open, by whether there is a GPU."""
SHARE = 0.9
"""Of the memory there is, that runs may fill together."""


def memory_needed(recipe: Recipe) -> int | None:
    """Bytes that training needs at most, about; None where the model is not at hand.

    Raises ModelError, ConfigError where there is no such model.
    """
    if not is_at_hand(recipe.model):
        return None
    runtime = recipe.runtime
    cache = default_cache() if runtime.cache == "auto" else Path(runtime.cache)
    folder = resolve_source(recipe.model, cache).path
    config = read_config(folder)
    config |= config.get("text_config") or {}
    tokens = recipe.training.micro_batch_tokens
    if tokens == "auto":
        tokens = TOKENS[_has_gpu(recipe.runtime.device)]
    layers = int(config.get("num_hidden_layers") or config.get("n_layer") or 0)
    hidden = int(config.get("hidden_size") or config.get("n_embd") or 0)
    each = FROZEN if isinstance(recipe.tuning, LoRA) else LEARNING
    weights = count_weights(folder).model * each
    return PROCESS + weights + ACTIVATIONS * int(tokens) * layers * hidden


def memory_for_runs() -> int:
    """Bytes that runs on this machine may need together: of its GPUs where it has some."""
    devices = probe_devices()
    return int(SHARE * (sum(devices.memory) if devices.has_cuda else memory_bytes()))


def _has_gpu(device: str) -> bool:
    return probe_devices().has_cuda if device == "auto" else device == "cuda"
