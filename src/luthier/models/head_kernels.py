"""The summed loss of the head by other kernels, where they are there and measured faster.

Ours, torch's `linear_cross_entropy` in chunks, and Liger's fused one compute the same sum. On a GPU
they are timed once, on the first batch; one that gives another loss or gradient is out. A head that
learns in half precision stays with ours, which sums its gradient in float32. On a CPU ours stays,
so that a run repeats bit for bit; it was 4 to 37 times as fast as torch's there (docs/methods.md).
"""

import time
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from luthier.models.head import Head, head_loss

HeadSum = tuple[Tensor, Tensor | None]
"""Sum of the losses, differentiable, and each of them [S], detached, where the kernel says them."""
HeadKernel = Callable[[Tensor, Head, Tensor], HeadSum]
"""Hidden states [S, H], head, targets [S] -> the losses."""

TIMES = 3
"""How often each is timed; the fastest time counts."""
TOLERANCE = 0.01
"""Largest difference from our loss and gradient, as a share of it; bfloat16 rounds by 0.004."""


def ours(hidden: Tensor, head: Head, targets: Tensor) -> HeadSum:
    """By `head_loss`."""
    return head_loss(hidden, head, targets, torch.ones(len(targets), device=hidden.device))


def native(hidden: Tensor, head: Head, targets: Tensor) -> HeadSum:
    """By torch's own."""
    compute: Any = functional.linear_cross_entropy
    options: Any = torch.nn.LinearCrossEntropyOptions()
    total: Tensor = compute(
        hidden, head.weight, targets, linear_bias=head.bias, reduction="sum", options=options
    )
    return total, None


def liger(hidden: Tensor, head: Head, targets: Tensor) -> HeadSum:
    """By Liger's Triton kernels."""
    module: Any = import_module("liger_kernel.transformers.fused_linear_cross_entropy")
    compute = module.LigerFusedLinearCrossEntropyLoss(reduction="sum", softcap=head.cap)
    total: Tensor = compute(head.weight, hidden, targets, head.bias)
    return total, None


def candidates(head: Head, device: torch.device) -> list[HeadKernel]:
    """The kernels that can compute a head's loss on a device."""
    found: list[HeadKernel] = [ours]
    rounds = head.weight.dtype in (torch.bfloat16, torch.float16)
    if head.scale != 1 or (rounds and head.weight.requires_grad):
        return found
    if head.cap is None and hasattr(functional, "linear_cross_entropy"):
        found.append(native)
    if device.type == "cuda" and find_spec("liger_kernel") is not None:
        found.append(liger)
    return found


def choose(hidden: Tensor, head: Head, targets: Tensor) -> HeadKernel:
    """The fastest kernel for such a batch."""
    if hidden.device.type != "cuda":
        return ours
    return fastest(candidates(head, hidden.device), hidden, head, targets)


def fastest(kernels: list[HeadKernel], hidden: Tensor, head: Head, targets: Tensor) -> HeadKernel:
    """The kernel that takes the least time for losses and gradients; the first is what is right."""
    right: _Trial | None = None
    seconds: dict[HeadKernel, float] = {}
    for kernel in kernels:
        try:
            found = _try(kernel, hidden, head, targets)
        except (RuntimeError, ImportError, NotImplementedError):
            if right is None:
                raise
            continue  # it cannot run here
        right = found if right is None else right
        if found.is_like(right):
            seconds[kernel] = found.seconds
    return min(seconds, key=lambda kernel: seconds[kernel])


class _Trial(NamedTuple):
    """What a kernel took and gave."""

    seconds: float
    loss: Tensor
    gradient: Tensor
    """Of the hidden states."""

    def is_like(self, right: "_Trial") -> bool:
        """Whether loss and gradient are those of another trial."""
        # A sum in bfloat16 would round what the loop scales all gradients by.
        return self.loss.dtype == right.loss.dtype and all(
            bool((found - expected).norm() <= TOLERANCE * expected.norm())
            for found, expected in (
                (self.loss.double(), right.loss.double()),
                (self.gradient.float(), right.gradient.float()),
            )
        )


def _try(kernel: HeadKernel, hidden: Tensor, head: Head, targets: Tensor) -> _Trial:
    seconds = []
    for _ in range(TIMES):
        start = hidden.detach().requires_grad_()
        begun = time.perf_counter()
        with torch.enable_grad():
            loss, _ = kernel(start, head, targets)
            (gradient,) = torch.autograd.grad(loss, start)
        loss.item()  # waits for the GPU
        if hidden.device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - begun)
    return _Trial(min(seconds), loss.detach(), gradient)
