"""Products of few rows with large matrices, x W^T, in blocks of the matrix.

PyTorch's CPU build first packs one side of a float32 product into the layout of its kernels, and
reads large weights at half the speed of memory for it. Small products are computed in place. So a
matrix is taken as blocks of BLOCK rows, one small product each: up to 1.9 times as fast for up to
two hundred rows (`python -m benchmarks.products`). What is computed is the same but for the order
of sums.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

BLOCK = 32
"""Rows of a matrix that are taken together."""
FEW = 16
"""Rows of x from which on blocks are multiplied with x^T; above, multiples of it are fastest."""
MOST_ROWS = 256
"""Rows of x above which all ways take the same time."""


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x W^T + bias for x [..., I] and W [O, I], whichever way is faster; nothing learns from it.

    From FEW rows on the result is laid out by columns, and so is what the next layer makes of it.
    """
    if not is_quick(x, weight):
        return functional.linear(x, weight, bias)
    num_rows = x.numel() // x.shape[-1]
    rows, blocks = x.reshape(num_rows, -1), weight.view(-1, BLOCK, weight.shape[1])
    if num_rows < FEW:
        found = torch.bmm(rows.expand(len(blocks), -1, -1), blocks.transpose(1, 2))
        found = found.transpose(0, 1).reshape(num_rows, -1)
    else:
        columns = rows.t().contiguous()
        found = torch.bmm(blocks, columns.expand(len(blocks), -1, -1)).view(-1, num_rows).t()
    if bias is not None:
        found = found + bias
    return cast(Tensor, found.unflatten(0, x.shape[:-1]))


def likeliest(logits: Tensor) -> Tensor:
    """The index [N] of the largest of each row of logits [N, V]."""
    num_rows, width = logits.shape
    if width % BLOCK or not logits.t().is_contiguous():
        return logits.argmax(dim=-1)
    # By columns, as `product` lays them out: the best block first, then the best within it.
    blocks = logits.t().view(-1, BLOCK, num_rows)
    best = blocks.amax(dim=1).argmax(dim=0)
    within = blocks[best, :, torch.arange(num_rows, device=best.device)].argmax(dim=-1)
    return best * BLOCK + within


def quick_counts(least: int, most: int, like: Tensor) -> Sequence[int]:
    """Numbers of rows worth computing, from `least` to `most` or the first above; ascending."""
    if like.dtype != torch.float32 or like.device.type != "cpu":
        return range(least, most + 1)
    counts = range(least, max(most + 1, least + FEW))
    return [n for n in counts if n <= FEW or n % FEW == 0 or n > MOST_ROWS]


def is_quick(x: Tensor, weight: Tensor) -> bool:
    """Whether `product` takes x [..., I] and W [O, I] in blocks."""
    is_plain = x.dtype == weight.dtype == torch.float32 and x.device.type == "cpu"
    is_few = 2 < x.numel() // x.shape[-1] <= MOST_ROWS
    is_whole = weight.shape[0] % BLOCK == 0 and weight.is_contiguous()
    return is_plain and is_few and is_whole and not torch.is_grad_enabled()


@contextmanager
def quick_products(network: nn.Module) -> Iterator[None]:
    """Within, linear layers compute few rows the faster way."""
    ways: dict[type[nn.Module], Callable[..., Tensor]] = {
        nn.Linear: _product_of,
        nn.Embedding: _columns_of,
    }
    layers = [module for module in network.modules() if type(module) in ways]
    try:
        for layer in layers:
            layer.forward = partial(ways[type(layer)], layer)
        yield
    finally:
        for layer in layers:
            del layer.forward


def _product_of(layer: nn.Linear, x: Tensor) -> Tensor:
    return product(x, layer.weight, layer.bias)


def _columns_of(layer: nn.Embedding, ids: Tensor) -> Tensor:
    """Laid out by columns where products are: what layers add to it comes to lie as it does."""
    found = nn.Embedding.forward(layer, ids)
    if ids.numel() >= FEW and is_quick(found, layer.weight):
        return found.flatten(0, -2).t().contiguous().t().view_as(found)
    return found
