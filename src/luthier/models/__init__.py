"""Weights become predictions: sources, loading, attention, head, adapters, generation.

Importing this room loads nothing; each name loads its module when first used, so that resolving a
cached model needs no torch.
"""

import logging
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from luthier.models.adapters import (
        check_tuning,
        load_adapter,
        make_trainable,
        merge_adapter,
        save_adapter,
        save_model,
    )
    from luthier.models.asking import logits_of, vectors_of
    from luthier.models.devices import (
        Devices,
        choose_device,
        peak_memory,
        precision,
        probe_devices,
    )
    from luthier.models.divergence import kl_to_start
    from luthier.models.encoder_tuning import (
        check_encoder_tuning,
        fold_scale,
        make_encoder_trainable,
        save_encoder,
    )
    from luthier.models.encoders import Encoder, encoder_outline, load_encoder
    from luthier.models.engine import Allow, Answer, Asked, Choosing, End, Engine, Piece, Told
    from luthier.models.flat import FlatBatch, pack
    from luthier.models.forms import Forms
    from luthier.models.generation import Generated, Sampling, generate
    from luthier.models.head import Head, HeadLoss, head_loss
    from luthier.models.loading import LanguageModel, compiled_lean, load_model, outline
    from luthier.models.losses import Likelihood, answer_losses, choice_likelihoods
    from luthier.models.pooling import LABELS_FILE, Pooling, read_pooling
    from luthier.models.sharding import gather, shard
    from luthier.models.sources import (
        ModelFolder,
        Sizes,
        count_weights,
        default_cache,
        resolve_source,
    )
    from luthier.models.trained import TrainedWeights, load_trained, trained_parameters

# PEFT imports bitsandbytes where it is installed, which warns of a kernel that training never uses.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)

_MODULES = {
    "adapters": (
        "check_tuning",
        "load_adapter",
        "make_trainable",
        "merge_adapter",
        "save_adapter",
        "save_model",
    ),
    "asking": ("logits_of", "vectors_of"),
    "devices": ("Devices", "choose_device", "peak_memory", "precision", "probe_devices"),
    "divergence": ("kl_to_start",),
    "encoder_tuning": (
        "check_encoder_tuning",
        "fold_scale",
        "make_encoder_trainable",
        "save_encoder",
    ),
    "encoders": ("Encoder", "encoder_outline", "load_encoder"),
    "engine": ("Allow", "Answer", "Asked", "Choosing", "End", "Engine", "Piece", "Told"),
    "flat": ("FlatBatch", "pack"),
    "forms": ("Forms",),
    "generation": ("Generated", "Sampling", "generate"),
    "head": ("Head", "HeadLoss", "head_loss"),
    "loading": ("LanguageModel", "compiled_lean", "load_model", "outline"),
    "losses": ("Likelihood", "answer_losses", "choice_likelihoods"),
    "pooling": ("LABELS_FILE", "Pooling", "read_pooling"),
    "sharding": ("gather", "shard"),
    "trained": ("TrainedWeights", "load_trained", "trained_parameters"),
    "sources": ("ModelFolder", "Sizes", "count_weights", "default_cache", "resolve_source"),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "LABELS_FILE",
    "Allow",
    "Answer",
    "Asked",
    "Choosing",
    "Devices",
    "End",
    "Engine",
    "Encoder",
    "FlatBatch",
    "Forms",
    "Generated",
    "Head",
    "HeadLoss",
    "LanguageModel",
    "ModelFolder",
    "Piece",
    "Pooling",
    "Told",
    "TrainedWeights",
    "Sampling",
    "Sizes",
    "count_weights",
    "answer_losses",
    "choice_likelihoods",
    "Likelihood",
    "check_encoder_tuning",
    "check_tuning",
    "choose_device",
    "compiled_lean",
    "default_cache",
    "encoder_outline",
    "fold_scale",
    "gather",
    "generate",
    "head_loss",
    "kl_to_start",
    "load_adapter",
    "load_encoder",
    "load_model",
    "load_trained",
    "logits_of",
    "make_encoder_trainable",
    "make_trainable",
    "merge_adapter",
    "outline",
    "pack",
    "peak_memory",
    "precision",
    "probe_devices",
    "read_pooling",
    "resolve_source",
    "save_adapter",
    "save_encoder",
    "save_model",
    "shard",
    "trained_parameters",
    "vectors_of",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
