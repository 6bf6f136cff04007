"""Products of few rows with large matrices, computed the other way round: (W x^T)^T for x W^T.

The matrix library of PyTorch's CPU build is up to 1.8 times as fast so for up to a hundred rows in
float32; what is computed is the same but for the order of sums. The result is laid out by columns,
and so is what the next layer makes of it, so that nothing is turned round in memory.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

BLOCK = 16
"""Rows that its kernels take together; with some more or less they are half as fast."""
FEW = 4
"""Rows up to which they are fast nevertheless."""
MOST_ROWS = 128
"""Above it both ways take the same time."""


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x W^T + bias for x [..., I] and W [O, I], whichever way is faster; nothing learns from it."""
    is_plain = x.dtype == weight.dtype == torch.float32 and x.device.type == "cpu"
    num_rows = x.numel() // x.shape[-1]
    is_quick = num_rows <= FEW or num_rows in range(BLOCK, MOST_ROWS + 1, BLOCK)
    if not (is_plain and is_quick) or torch.is_grad_enabled():
        return functional.linear(x, weight, bias)
    found = torch.mm(weight, x.reshape(num_rows, -1).t()).t()
    if bias is not None:
        found = found + bias
    return cast(Tensor, found.unflatten(0, x.shape[:-1]))


def quick_count(num_rows: int, like: Tensor) -> int:
    """Rows to compute in place of so many, where more are faster."""
    is_plain = like.dtype == torch.float32 and like.device.type == "cpu"
    if not is_plain or num_rows <= FEW or num_rows > MOST_ROWS:
        return num_rows
    return num_rows + -num_rows % BLOCK


@contextmanager
def quick_products(network: nn.Module) -> Iterator[None]:
    """Within, linear layers compute few rows the faster way."""
    layers = [module for module in network.modules() if type(module) is nn.Linear]
    try:
        for layer in layers:
            layer.forward = partial(_forward, layer)  # type: ignore[method-assign]
        yield
    finally:
        for layer in layers:
            del layer.forward


def _forward(layer: nn.Linear, x: Tensor) -> Tensor:
    return product(x, layer.weight, layer.bias)
