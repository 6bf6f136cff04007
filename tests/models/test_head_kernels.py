"""Every kernel of the head gives our loss and gradients, and one that does not is never chosen."""

import time

import pytest
import torch
from torch import Tensor

from luthier.models.head import Head
from luthier.models.head_kernels import HeadSum, candidates, choose, fastest, native, ours

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(
    not torch.cuda.is_available(), reason="needs a CUDA GPU"
))]  # fmt: skip


def batch(device: str, *, is_trained: bool) -> tuple[Tensor, Head, Tensor]:
    torch.manual_seed(0)
    weight = torch.randn(300, 16, device=device, requires_grad=is_trained)
    hidden = torch.randn(50, 16, device=device, requires_grad=True)
    return hidden, Head(weight), torch.randint(300, (50,), device=device)


def late(hidden: Tensor, head: Head, targets: Tensor) -> HeadSum:
    """Ours, slowly, so that any other that is right is chosen."""
    time.sleep(0.05)
    return ours(hidden, head, targets)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("is_trained", [False, True])
def test_all_kernels_agree(device: str, is_trained: bool) -> None:
    hidden, head, targets = batch(device, is_trained=is_trained)
    inputs = [hidden, head.weight] if is_trained else [hidden]
    expected, each = ours(hidden, head, targets)
    assert each is not None
    torch.testing.assert_close(each.sum(), expected.detach(), rtol=1e-5, atol=1e-4)
    slopes = torch.autograd.grad(expected, inputs)
    kernels = candidates(head, torch.device(device))
    assert native in kernels
    for kernel in kernels:
        found, _ = kernel(hidden, head, targets)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-4)
        for a, b in zip(torch.autograd.grad(found, inputs), slopes, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_what_is_wrong_or_cannot_run_is_not_chosen() -> None:
    hidden, head, targets = batch("cpu", is_trained=False)

    def wrong(hidden: Tensor, head: Head, targets: Tensor) -> HeadSum:
        return hidden.sum(), None

    def broken(hidden: Tensor, head: Head, targets: Tensor) -> HeadSum:
        raise RuntimeError("not on this device")

    def misled(hidden: Tensor, head: Head, targets: Tensor) -> HeadSum:
        """The loss, with half of its gradient."""
        loss, each = ours(hidden, head, targets)
        return loss / 2 + loss.detach() / 2, each

    assert fastest([late, wrong, broken, misled], hidden, head, targets) is late


@pytest.mark.parametrize("device", DEVICES)
def test_a_head_that_learns_in_half_precision_is_ours(device: str) -> None:
    _, head, _ = batch(device, is_trained=True)
    half = Head(head.weight.detach().bfloat16().requires_grad_())
    assert candidates(half, torch.device(device)) == [ours]
    assert candidates(half.detached(), torch.device(device)) != [ours]


@pytest.mark.parametrize("device", DEVICES)
def test_a_sum_in_half_precision_is_not_chosen(device: str) -> None:
    hidden, head, targets = batch(device, is_trained=False)
    hidden, head = hidden.detach().bfloat16(), Head(head.weight.bfloat16())
    assert fastest([late, native], hidden, head, targets) is late


def test_what_takes_less_time_is_chosen() -> None:
    hidden, head, targets = batch("cpu", is_trained=False)
    assert fastest([late, ours], hidden, head, targets) is ours


def test_a_head_that_scales_or_caps_is_ours_on_a_cpu() -> None:
    hidden, head, targets = batch("cpu", is_trained=False)
    assert candidates(Head(head.weight, scale=0.5), hidden.device) == [ours]
    assert candidates(Head(head.weight, cap=30.0), hidden.device) == [ours]
    assert choose(hidden, head, targets) is ours
