"""Learning-rate schedule and optimizer.

AdamW with decoupled weight decay (Loshchilov and Hutter 2019) on float32 weights; linear warm-up,
then cosine, linear or constant.
"""

import math
from collections.abc import Iterable
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Literal, cast

import torch

from luthier.errors import missing_package

BETAS = (0.9, 0.999)
EPSILON = 1e-8


def learning_rate_factor(
    step: int,
    num_steps: int,
    warmup_ratio: float,
    schedule: Literal["cosine", "linear", "constant"],
) -> float:
    """Share of the peak learning rate for step 0..num_steps-1; reaches 1, never 0 while training.

    The warm-up rises over the first ceil(warmup_ratio * num_steps) steps; the course after it
    ends just above 0, so that the last step still learns.
    """
    num_warmup = math.ceil(warmup_ratio * num_steps)
    if step < num_warmup:
        return (step + 1) / num_warmup
    progress = (step - num_warmup) / max(1, num_steps - num_warmup)
    if schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * progress))
    return 1.0 - progress if schedule == "linear" else 1.0


def build_optimizer(
    parameters: Iterable[torch.nn.Parameter],
    kind: Literal["adamw", "adamw-8bit"],
    weight_decay: float,
) -> torch.optim.Optimizer:
    """AdamW over float32 parameters; the caller sets the learning rate before each step.

    "adamw-8bit" keeps the moments in 8 bits, block by block (Dettmers et al. 2022). Raises
    ConfigError when bitsandbytes is not installed for it.
    """
    settings: dict[str, Any] = {
        "lr": 0.0, "betas": BETAS, "eps": EPSILON, "weight_decay": weight_decay
    }  # fmt: skip
    if kind == "adamw":
        return torch.optim.AdamW(parameters, fused=True, **settings)
    if find_spec("bitsandbytes") is None:
        raise missing_package(
            "bitsandbytes", "qlora", where="training.optimizer", accepted="adamw without it"
        )
    bitsandbytes: Any = import_module("bitsandbytes.optim")
    return cast(torch.optim.Optimizer, bitsandbytes.AdamW8bit(parameters, **settings))
