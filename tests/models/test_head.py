"""The chunked head equals plain cross-entropy, in value and gradient, whatever the chunk."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from luthier.models import head as head_module
from luthier.models import head_loss


@given(
    rows=st.integers(1, 40),
    vocabulary=st.integers(2, 60),
    scale=st.sampled_from([1.0, 0.25]),
    trains_head=st.booleans(),
    seed=st.integers(0, 100),
)
@settings(max_examples=60, deadline=None)
def test_the_chunked_head_equals_cross_entropy(
    rows: int, vocabulary: int, scale: float, trains_head: bool, seed: int
) -> None:
    torch.manual_seed(seed)
    hidden = torch.randn(rows, 8, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(vocabulary, 8, dtype=torch.float64, requires_grad=trains_head)
    targets = torch.randint(vocabulary, (rows,))
    weights = torch.rand(rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(head_module, "CHUNK_BYTES", 16 * 8 * vocabulary)
        found = head_loss(hidden, weight, targets, weights, scale)
    logits = (hidden @ weight.t()) * scale
    each = functional.cross_entropy(logits, targets, reduction="none")
    expected = (each * weights).sum()
    inputs = (hidden, weight) if trains_head else (hidden,)
    torch.testing.assert_close(found.total, expected, rtol=1e-5, atol=1e-5, check_dtype=False)
    torch.testing.assert_close(found.each, each, rtol=1e-5, atol=1e-5, check_dtype=False)
    for a, b in zip(
        torch.autograd.grad(found.total * 0.5, inputs),
        torch.autograd.grad(expected * 0.5, inputs),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_a_chunk_fits_the_budget() -> None:
    for vocabulary in (100, 49_152, 262_144):
        bytes_held = 4 * vocabulary * head_module.rows_of_chunk(vocabulary, 4)
        assert bytes_held <= head_module.CHUNK_BYTES


def test_a_loss_far_beyond_float32_shares_is_exact() -> None:
    """A target whose probability underflows still has its loss."""
    weight = torch.tensor([[200.0], [0.0], [-200.0]])
    found = head_loss(torch.ones(1, 1), weight, torch.tensor([2]), torch.ones(1))
    torch.testing.assert_close(found.each, torch.tensor([400.0]))
