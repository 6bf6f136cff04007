"""Weights become predictions: sources, loading, attention, head, adapters, generation.

Importing this room loads nothing; each name loads its module when first used, so that resolving a
cached model needs no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from luthier.models.adapters import attach, load_adapter, save_adapter, trained_parameters
    from luthier.models.devices import (
        Devices,
        choose_device,
        peak_memory,
        precision,
        probe_devices,
    )
    from luthier.models.flat import FlatBatch, pack
    from luthier.models.generation import Generated, generate
    from luthier.models.head import HeadLoss, head_loss
    from luthier.models.loading import LanguageModel, load_model
    from luthier.models.losses import answer_losses, mean_loss
    from luthier.models.sources import ModelFolder, default_cache, resolve_source

_MODULES = {
    "adapters": ("attach", "load_adapter", "save_adapter", "trained_parameters"),
    "devices": ("Devices", "choose_device", "peak_memory", "precision", "probe_devices"),
    "flat": ("FlatBatch", "pack"),
    "generation": ("Generated", "generate"),
    "head": ("HeadLoss", "head_loss"),
    "loading": ("LanguageModel", "load_model"),
    "losses": ("answer_losses", "mean_loss"),
    "sources": ("ModelFolder", "default_cache", "resolve_source"),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "Devices",
    "FlatBatch",
    "Generated",
    "HeadLoss",
    "LanguageModel",
    "ModelFolder",
    "answer_losses",
    "attach",
    "choose_device",
    "default_cache",
    "generate",
    "head_loss",
    "load_adapter",
    "load_model",
    "mean_loss",
    "pack",
    "peak_memory",
    "precision",
    "probe_devices",
    "resolve_source",
    "save_adapter",
    "trained_parameters",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
