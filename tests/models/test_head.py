"""The chunked head equals plain cross-entropy, in value and gradient, whatever the chunk."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from luthier.models import head as head_module
from luthier.models.head import Head, head_loss, token_losses


@given(
    rows=st.integers(1, 40),
    vocabulary=st.integers(2, 60),
    scale=st.sampled_from([1.0, 0.25]),
    cap=st.sampled_from([None, 3.0]),
    has_bias=st.booleans(),
    trains_head=st.booleans(),
    seed=st.integers(0, 100),
)
@settings(max_examples=60, deadline=None)
def test_the_chunked_head_equals_cross_entropy(
    *, rows: int, vocabulary: int, scale: float, cap: float | None, has_bias: bool,
    trains_head: bool, seed: int,
) -> None:  # fmt: skip
    torch.manual_seed(seed)
    hidden = torch.randn(rows, 8, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(vocabulary, 8, dtype=torch.float64, requires_grad=trains_head)
    bias = torch.randn(vocabulary, dtype=torch.float64, requires_grad=trains_head)
    targets = torch.randint(vocabulary, (rows,))
    weights = torch.rand(rows)
    head = Head(weight, bias if has_bias else None, scale, cap)
    logits = (hidden @ weight.t() + (bias if has_bias else 0)) * scale
    logits = logits if cap is None else cap * torch.tanh(logits / cap)
    each = functional.cross_entropy(logits, targets, reduction="none")
    learnt = (hidden, weight, *([bias] if has_bias else []))
    inputs = learnt if trains_head else (hidden,)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(head_module, "CHUNK_BYTES", 16 * 8 * vocabulary)
        found = head_loss(hidden, head, targets, weights)
        separate = token_losses(hidden, head, targets)
        # A loss that is not linear in the log-likelihoods, as preference objectives are.
        bent = torch.autograd.grad((separate.square() * weights).sum(), inputs)
        slopes = torch.autograd.grad(found.total * 0.5, inputs)
    expected = (each * weights).sum()
    torch.testing.assert_close(found.total, expected, rtol=1e-5, atol=1e-5, check_dtype=False)
    for losses in (found.each, separate):
        torch.testing.assert_close(losses, each, rtol=1e-5, atol=1e-5, check_dtype=False)
    plain = torch.autograd.grad(expected * 0.5, inputs, retain_graph=True)
    plainly_bent = torch.autograd.grad((each.square() * weights).sum(), inputs)
    for a, b in zip((*slopes, *bent), (*plain, *plainly_bent), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_a_chunk_fits_the_budget() -> None:
    for vocabulary in (100, 49_152, 262_144):
        bytes_held = 4 * vocabulary * head_module.rows_of_chunk(vocabulary, 4)
        assert bytes_held <= head_module.CHUNK_BYTES


def test_a_loss_far_beyond_float32_shares_is_exact() -> None:
    """A target whose probability underflows still has its loss."""
    weight = torch.tensor([[200.0], [0.0], [-200.0]])
    found = head_loss(torch.ones(1, 1), Head(weight), torch.tensor([2]), torch.ones(1))
    torch.testing.assert_close(found.each, torch.tensor([400.0]))


@torch.no_grad()
def test_without_gradients_none_are_formed(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    head = Head(torch.randn(300, 8, requires_grad=True), torch.randn(300, requires_grad=True))
    hidden, targets, weights = torch.randn(40, 8), torch.randint(300, (40,)), torch.rand(40)
    with torch.enable_grad():
        expected = head_loss(hidden, head, targets, weights)
    monkeypatch.delattr(head_module, "_Gradients")
    found = head_loss(hidden, head, targets, weights)
    assert torch.equal(found.total, expected.total)
    assert torch.equal(found.each, expected.each)
