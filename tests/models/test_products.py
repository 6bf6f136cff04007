"""Few rows times large matrices, in blocks: the same numbers, nothing else touched."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from luthier.models.products import (
    BLOCK,
    MOST_ROWS,
    likeliest,
    product,
    quick_counts,
    quick_products,
)


@pytest.mark.parametrize("num_rows", [1, 3, 15, 16, 17, 128, MOST_ROWS, 300])
@pytest.mark.parametrize("num_outputs", [BLOCK, 3 * BLOCK, 80])
@pytest.mark.parametrize("has_bias", [True, False])
def test_products_are_those_of_the_plain_way(
    num_rows: int, num_outputs: int, has_bias: bool
) -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(1, num_rows, 48), torch.randn(num_outputs, 48)
    bias = torch.randn(num_outputs) if has_bias else None
    with torch.no_grad():
        found = product(x, weight, bias)
        # By columns, as the layer before may have left it.
        by_columns = x[0].t().contiguous().t()[None]
        assert torch.allclose(product(by_columns, weight, bias), found, atol=1e-5)
    assert found.shape == (1, num_rows, num_outputs)
    assert torch.allclose(found, functional.linear(x, weight, bias), atol=1e-5)


def test_what_learns_goes_the_plain_way() -> None:
    x, weight = torch.randn(16, 8), torch.randn(4, 8, requires_grad=True)
    product(x, weight).sum().backward()
    assert weight.grad is not None
    assert torch.allclose(weight.grad, x.sum(0).expand(4, 8), atol=1e-5)


def test_other_precisions_go_the_plain_way() -> None:
    x, weight = torch.randn(16, 8).bfloat16(), torch.randn(4, 8).bfloat16()
    with torch.no_grad():
        assert torch.equal(product(x, weight), functional.linear(x, weight))
    assert list(quick_counts(7, 9, weight)) == [7, 8, 9]


def test_rows_are_filled_up_to_what_is_fast() -> None:
    like = torch.zeros(1)
    assert quick_counts(1, 9, like) == list(range(1, 17))
    assert quick_counts(15, 40, like) == [15, 16, 32]
    assert quick_counts(17, 17, like) == [32]
    assert quick_counts(MOST_ROWS - 1, MOST_ROWS + 2, like)[:2] == [MOST_ROWS, MOST_ROWS + 1]


@pytest.mark.parametrize(("num_rows", "width"), [(1, 64), (5, 96), (20, 96), (20, 50), (300, 32)])
def test_the_likeliest_token_is_found_however_logits_lie(num_rows: int, width: int) -> None:
    torch.manual_seed(0)
    with torch.no_grad():
        logits = product(torch.randn(num_rows, 8), torch.randn(width, 8))
    assert likeliest(logits).tolist() == logits.argmax(dim=-1).tolist()
    alike = torch.zeros(width, num_rows).t()
    assert likeliest(alike).tolist() == [0] * num_rows


def test_layers_are_as_before_afterwards() -> None:
    network = nn.Sequential(
        nn.Embedding(BLOCK, 8), nn.Linear(8, BLOCK), nn.ReLU(), nn.Linear(BLOCK, BLOCK, bias=False)
    )
    x = torch.arange(16)
    with torch.inference_mode():
        plain = network(x)
        with quick_products(network):
            quick = network(x)
            assert quick.stride() != plain.stride()
        assert torch.allclose(quick, plain, atol=1e-6)
        assert torch.equal(network(x), plain)
    with pytest.raises(IndexError), quick_products(network):
        network(torch.tensor([BLOCK] * 16))
    assert not any("forward" in layer.__dict__ for layer in network)
