"""The profile counts every matrix product once."""

import torch

from luthier.models.lean import Adapted, adapted_feed_forward, adapted_linears
from luthier.training.profiling import count_flops

TOKENS, WIDTH, INNER, RANK = 7, 24, 40, 4


def layer(inputs: int, outputs: int) -> Adapted:
    down, up = torch.randn(RANK, inputs), torch.randn(outputs, RANK)
    weight = torch.randn(outputs, inputs)
    return Adapted(weight, None, down.requires_grad_(), up.requires_grad_())


def products(*layers: tuple[int, int]) -> int:
    """Of frozen layers with adapters, forward and backward.

    The frozen matrix multiplies twice (the output, the input's gradient), each of the adapter's
    three times.
    """
    return sum(2 * TOKENS * (2 * i * o + 3 * RANK * (i + o)) for i, o in layers)


def test_products_that_are_added_in_place_are_counted() -> None:
    x = torch.randn(1, TOKENS, WIDTH, requires_grad=True)
    only = layer(WIDTH, INNER)
    assert count_flops(lambda: adapted_linears(x, only)[0].sum().backward()) == products(
        (WIDTH, INNER)
    )


def test_a_feed_forward_counts_as_its_three_layers() -> None:
    x = torch.randn(1, TOKENS, WIDTH, requires_grad=True)
    gate, up, down = layer(WIDTH, INNER), layer(WIDTH, INNER), layer(INNER, WIDTH)
    found = count_flops(lambda: adapted_feed_forward(x, gate, up, down).sum().backward())
    assert found == products((WIDTH, INNER), (WIDTH, INNER), (INNER, WIDTH))
