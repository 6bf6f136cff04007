"""A model that no run made: where it lies, and the device and precision that it is loaded with."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from luthier.evaluation import Embed
from luthier.models import (
    ModelFolder,
    choose_device,
    default_cache,
    load_encoder,
    precision,
    probe_devices,
    resolve_source,
)
from luthier.pipeline.asking import Reader
from luthier.recipe import Model, Runtime
from luthier.runs import num_cores
from luthier.tokens import Tokenizer

TOKENS_AT_ONCE = 4096
"""Computed together, where no recipe says."""
TEXT_TOKENS = 512
"""Of a text that a vector stands for."""


def resolve(source: str, runtime: Runtime, observe: Callable[[str], None]) -> ModelFolder:
    """The model as local files."""
    cache = default_cache() if runtime.cache == "auto" else Path(runtime.cache)
    return resolve_source(Model(source=source), cache, observe)


def place(source: str, runtime: Runtime, observe: Callable[[str], None]) -> tuple[Path, Any, Any]:
    """The model's folder, and the device and precision that it is loaded with."""
    folder = resolve(source, runtime, observe)
    devices = probe_devices()
    threads = num_cores() if runtime.threads == "auto" else runtime.threads
    device, dtype = runtime.device, runtime.dtype
    if device == "auto":
        device = "cuda" if devices.has_cuda else "cpu"
    if dtype == "auto":
        dtype = "bfloat16" if devices.has_fast_bfloat16 else "float32"
    return folder.path, choose_device(device, threads), precision(dtype)


def open_texts(source: str, runtime: Runtime) -> Reader:
    """A model of texts, for its vectors. Raises ConfigError, ModelError."""
    folder, device, dtype = place(source, runtime, lambda note: None)
    tokenizer = Tokenizer.load(folder, writes=False)
    model = load_encoder(folder, dtype=dtype, device=device)
    longest = min(tokenizer.context_length or TEXT_TOKENS, TEXT_TOKENS)
    return Reader(model, tokenizer, longest, TOKENS_AT_ONCE)


def open_vectors(source: str, runtime: Runtime) -> Embed:
    """What makes vectors [n, D] of texts with a model of texts. Raises ConfigError, ModelError."""
    return open_texts(source, runtime).vectors
