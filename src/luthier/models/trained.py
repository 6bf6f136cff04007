"""The weights that learn, in float32, whatever precision the model computes in.

Steps of a small learning rate vanish in bfloat16, so weights that learn are kept in float32
("masters") and the model computes with their rounded copies, which small steps move too
(`rounding.py`). A gradient is added to its master's as soon as it is complete and then let go, so
that gradients of micro-batches sum up in float32 too.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from luthier.errors import ModelError
from luthier.models.rounding import round_evenly


class TrainedWeights:
    """Everything of a network that requires gradients, by name, as float32 parameters."""

    def __init__(self, network: nn.Module) -> None:
        working = trained_parameters(network)
        self.masters = {name: _master(weight) for name, weight in working.items()}
        self._rounded = [
            (weight, self.masters[name])
            for name, weight in working.items()
            if self.masters[name] is not weight
        ]
        for weight, master in self._rounded:
            weight.register_post_accumulate_grad_hook(_hand_over(master))

    @torch.no_grad()
    def round(self) -> None:
        """Give the network the masters' values; to be called after they changed."""
        for weight, master in self._rounded:
            copy, wide = _own(weight), _own(master)
            copy.copy_(round_evenly(wide) if copy.dtype == torch.bfloat16 else wide)


def trained_parameters(network: nn.Module) -> dict[str, nn.Parameter]:
    """Name -> parameter of everything that learns, in the model's order."""
    return {name: p for name, p in network.named_parameters() if p.requires_grad}


@torch.no_grad()
def load_trained(network: nn.Module, file: Path) -> None:
    """Give a network the weights of a checkpoint, as far as they learnt.

    Raises ModelError where they are not weights of this network.
    """
    weights, found = dict(network.named_parameters()), load_file(file)
    for name, weight in found.items():
        if name not in weights or weights[name].shape != weight.shape:
            raise ModelError(f"holds {name}, which the model has not so", where=str(file))
    for name, weight in found.items():
        own = weights[name]
        own.copy_(round_evenly(weight) if own.dtype == torch.bfloat16 else weight)


def _own(tensor: Tensor) -> Tensor:
    """This process's part of a tensor that may be spread over several."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _master(weight: nn.Parameter) -> nn.Parameter:
    if weight.dtype in (torch.float32, torch.float64):
        return weight
    return nn.Parameter(weight.detach().float())


def _hand_over(master: nn.Parameter) -> Callable[[Tensor], None]:
    def add(weight: Tensor) -> None:
        assert weight.grad is not None, "called when the gradient is there"
        if master.grad is None:
            master.grad = weight.grad.float()
        else:
            master.grad += weight.grad
        weight.grad = None

    return add
