"""The weights that learn, in float32, whatever precision the model computes in.

Steps of a small learning rate vanish in bfloat16, so weights that learn are kept in float32
("masters") and the model computes with their rounded copies. A gradient is added to its master's as
soon as it is complete and then let go, so that gradients of micro-batches sum up in float32 too.
Masters start from the values as they are stored: rounded ones would lie midway between two steps of
the rounding, where small updates show late or never.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn


class TrainedWeights:
    """Everything of a network that requires gradients, by name, as float32 parameters.

    `stored` is the folder the network was loaded from.
    """

    def __init__(self, network: nn.Module, stored: Path | None = None) -> None:
        working = trained_parameters(network)
        self.masters = {name: _master(weight) for name, weight in working.items()}
        rounded = {
            name: self.masters[name] for name, w in working.items() if w.dtype == torch.bfloat16
        }
        if stored is not None:
            restore_stored(rounded, stored)
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
            weight.copy_(master)


def trained_parameters(network: nn.Module) -> dict[str, nn.Parameter]:
    """Name -> parameter of everything that learns, in the model's order."""
    return {name: p for name, p in network.named_parameters() if p.requires_grad}


@torch.no_grad()
def restore_stored(rounded: Mapping[str, Tensor], folder: Path) -> None:
    """Give float32 weights the values stored for them, of which bfloat16 made them.

    Weights that are not what is stored, but for the rounding, stay as they are.
    """
    for name, value in _stored(rounded, folder):
        weight = rounded[name]
        if value.shape == weight.shape and torch.equal(value.to(torch.bfloat16).float(), weight):
            weight.copy_(value)


def _stored(wanted: Mapping[str, Tensor], folder: Path) -> Iterator[tuple[str, Tensor]]:
    """Name and value of the wanted weights that a folder's files hold."""
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as weights:
            for name in sorted(set(weights.keys()) & wanted.keys()):
                yield name, weights.get_tensor(name).to(wanted[name].device)


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
