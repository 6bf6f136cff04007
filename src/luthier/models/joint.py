"""Layers that are given the same input, such as a block's query, key and value, computed at once.

The modelling code calls them one after another; the first call computes all. Their adapters share
one product with the input, and the input's gradient is summed where it is formed.
"""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from luthier.models.lean import Adapted, adapted_linears

TOGETHER = ("q_proj", "k_proj", "v_proj")
"""Names of layers that are given the same input, in the order of the calls."""


class Adaptable(Protocol):
    """A layer that may have a plain adapter."""

    joint: "Joint | None"

    def adapted(self, dtype: torch.dtype) -> Adapted | None:
        """Its matrices, if it has one."""
        ...


class Joint:
    """Outputs of layers for one input, computed by the first call and handed out by the others."""

    def __init__(self, layers: Sequence[Adaptable]) -> None:
        self._layers = tuple(layers)
        self._x: Tensor | None = None
        self._outputs: dict[Adaptable, Tensor] = {}

    def output(self, layer: Adaptable, x: Tensor) -> Tensor | None:
        """The layer's output; None if the layers cannot be computed at once."""
        if self._x is not x or layer not in self._outputs:
            if layer in self._outputs:  # for another input: they are not given the same
                self._layers = ()
            adapted = [matrices for other in self._layers if (matrices := other.adapted(x.dtype))]
            self._x, self._outputs = None, {}
            if not adapted or len(adapted) < len(self._layers):
                return None
            self._x = x
            self._outputs = dict(zip(self._layers, adapted_linears(x, *adapted), strict=True))
        output = self._outputs.pop(layer)
        if not self._outputs:
            self._x = None
        return output


def join_layers(network: nn.Module, kind: type[nn.Module]) -> None:
    """Let the layers of a kind that stand together in TOGETHER be computed at once."""
    for module in network.modules():
        layers = [getattr(module, name, None) for name in TOGETHER]
        found = [layer for layer in layers if isinstance(layer, kind)]
        if len(found) > 1:
            joint = Joint(found)  # type: ignore[arg-type]
            for layer in found:
                layer.joint = joint  # type: ignore[assignment]
