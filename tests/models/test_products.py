"""Few rows times large matrices, the other way round: the same numbers, nothing else touched."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from luthier.models.products import FEW, MOST_ROWS, product, quick_count, quick_products


@pytest.mark.parametrize("num_rows", [1, 3, 5, 16, 17, 128, 200])
@pytest.mark.parametrize("has_bias", [True, False])
def test_products_are_those_of_the_plain_way(num_rows: int, has_bias: bool) -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(1, num_rows, 48), torch.randn(80, 48)
    bias = torch.randn(80) if has_bias else None
    with torch.no_grad():
        found = product(x, weight, bias)
        # By columns, as the layer before may have left it.
        by_columns = x[0].t().contiguous().t()[None]
        assert torch.allclose(product(by_columns, weight, bias), found, atol=1e-5)
    assert found.shape == (1, num_rows, 80)
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
    assert quick_count(7, weight) == 7


def test_rows_are_filled_up_to_what_is_fast() -> None:
    like = torch.zeros(1)
    assert [quick_count(n, like) for n in (1, FEW, 5, 16, 17, MOST_ROWS, 129)] == [
        1, FEW, 16, 16, 32, MOST_ROWS, 129,
    ]  # fmt: skip


def test_layers_are_as_before_afterwards() -> None:
    network = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3, bias=False))
    x = torch.randn(16, 8)
    with torch.inference_mode():
        plain = network(x)
        with quick_products(network):
            quick = network(x)
            assert quick.stride() != plain.stride()
        assert torch.allclose(quick, plain, atol=1e-6)
        assert torch.equal(network(x), plain)
    with pytest.raises(RuntimeError), quick_products(network):
        network(torch.randn(16, 9))
    assert "forward" not in network[0].__dict__
