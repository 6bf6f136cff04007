"""What to do when memory runs out: smaller micro-batches, then activations computed twice.

Neither changes what is learnt. How much fits is found out at the first step, which is the one that
needs the most.
"""

import gc
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn

from luthier.errors import ConfigError
from luthier.models.learner import Learner

Activations = Literal["keep", "recompute", "offload"]


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether an error says that memory ran out, on a GPU or in the process."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    text = str(error).lower()
    return "can't allocate memory" in text or "not enough memory" in text or "out of memory" in text


def free_memory() -> None:
    """Give back what is no longer used."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def recompute_activations(model: Learner) -> None:
    """Keep only the input of each block for the backward pass, and compute the rest again.

    (Chen et al. 2016.) A third more work, bit-equal gradients. Raises ConfigError when the
    architecture cannot.
    """
    if not can_recompute(model):
        raise ConfigError(
            f"{model.base.config.model_type} models cannot compute activations again",
            where="training.activations",
            accepted="keep or offload for this architecture",
        )
    model.base.activation_checkpointing_enable({"use_reentrant": False})


def can_recompute(model: Learner) -> bool:
    """Whether the architecture's blocks can be computed again."""
    return bool(model.base.supports_gradient_checkpointing)


@contextmanager
def kept_activations(activations: Activations) -> Iterator[None]:
    """Within, what the backward pass needs is kept where it is, or in the host's memory."""
    if activations == "offload":
        host = torch.autograd.graph.save_on_cpu(pin_memory=torch.cuda.is_available())
        with torch.autograd.graph.saved_tensors_hooks(
            # Weights stay where they are anyway: copying them would free nothing.
            lambda x: x if _is_weight(x) else host.pack_hook(x),
            lambda kept: kept if isinstance(kept, Tensor) else host.unpack_hook(kept),
        ):
            yield
    else:
        yield


def _is_weight(x: Tensor) -> bool:
    """Whether this is a weight, or a view of one such as its transpose."""
    return isinstance(x, nn.Parameter) or isinstance(x._base, nn.Parameter)


def reserve_moments(parameters: Iterable[nn.Parameter]) -> list[torch.Tensor]:
    """As much memory as AdamW's moments will take after the first step, to be let go again."""
    on_gpu = [p for p in parameters if p.device.type == "cuda"]
    return [torch.empty_like(p) for p in on_gpu for _ in range(2)]
