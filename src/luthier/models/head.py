"""The language-model head and its loss, over supervised positions only, in bounded chunks.

Logits of a chunk live only long enough to give the loss and its gradient: the gradient with respect
to the hidden states is formed in the forward pass, so that no logits are kept or computed twice.
The same code serves training and the loss of reference answers.

Shapes: S supervised positions, H hidden width, V vocabulary, C rows of a chunk.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

CHUNK_BYTES = 16 * 2**20
"""Bytes of logits held at once; the rows of a chunk follow from the vocabulary."""

BLOCK_ROWS = 8
"""Rows whose softmax is taken at once in float32 on a CPU, so that it stays in the cache."""


class HeadLoss(NamedTuple):
    """Losses of supervised positions: the weighted sum to minimise, and each position's own."""

    total: Tensor
    """Sum over positions of weight x negative log-likelihood; differentiable; float32 scalar."""
    each: Tensor
    """Negative log-likelihood in nats per position [S], float32, detached."""


def head_loss(
    hidden: Tensor, weight: Tensor, targets: Tensor, weights: Tensor, scale: float = 1.0
) -> HeadLoss:
    """Cross-entropy of hidden states against target ids, through a frozen or trained head.

    hidden [S, H], weight [V, H], targets [S] int64, weights [S] float32; `scale` multiplies the
    logits (some architectures do). Computed in the dtype of `hidden`, summed in float32.
    """
    total, each = _ChunkedHeadLoss.apply(hidden, weight, targets, weights, scale)  # type: ignore[no-untyped-call]
    return HeadLoss(total, each)


def rows_of_chunk(vocabulary: int, element_size: int) -> int:
    """Rows whose logits fit the budget; at least 16, so that matrices stay efficient."""
    return max(16, CHUNK_BYTES // (element_size * vocabulary))


class _ChunkedHeadLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, weights: Tensor,
                scale: float) -> tuple[Tensor, Tensor]:  # fmt: skip
        needs_hidden, needs_weight = hidden.requires_grad, weight.requires_grad
        each = torch.empty(len(targets), dtype=torch.float32, device=hidden.device)
        grad_hidden = torch.empty_like(hidden) if needs_hidden else None
        grad_weight = torch.zeros_like(weight, dtype=torch.float32) if needs_weight else None
        step = rows_of_chunk(len(weight), weight.element_size())
        for start in range(0, len(targets), step):
            rows = slice(start, start + step)
            logits = hidden[rows] @ weight.t()
            each[rows] = _to_slopes(logits, targets[rows], weights[rows], scale)
            if grad_hidden is not None:
                grad_hidden[rows] = logits @ weight
            if grad_weight is not None:
                grad_weight += (logits.t() @ hidden[rows]).float()
        ctx.save_for_backward(grad_hidden, grad_weight)
        ctx.weight_dtype = weight.dtype
        ctx.mark_non_differentiable(each)
        return (each * weights).sum(), each

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        grad_hidden, grad_weight = ctx.saved_tensors
        factor = gradients[0]
        if grad_hidden is not None:
            # A rounded factor would scale all gradients alike: it stays in float32.
            grad_hidden = (grad_hidden.to(factor.dtype) * factor).to(grad_hidden.dtype)
        if grad_weight is not None:
            grad_weight = (grad_weight * factor).to(ctx.weight_dtype)
        return grad_hidden, grad_weight, None, None, None


def _to_slopes(logits: Tensor, targets: Tensor, weights: Tensor, scale: float) -> Tensor:
    """Losses [C] of logits [C, V], which become d loss / d logits: (softmax - one-hot) x weight."""
    losses = []
    block = BLOCK_ROWS if logits.device.type == "cpu" else len(logits)
    parts = (part.split(block) for part in (logits, targets[:, None], weights[:, None]))
    for low, chosen, weight in zip(*parts, strict=True):
        if scale != 1:
            low.mul_(scale)
        shares = torch.softmax(low, dim=-1, dtype=torch.promote_types(low.dtype, torch.float32))
        # The largest share is at least 1 / V, so its logarithm is safe: no second exponential.
        log_sum = low.amax(dim=-1).to(shares.dtype) - shares.amax(dim=-1).log_()
        losses.append(log_sum - low.gather(1, chosen)[:, 0].to(shares.dtype))
        shares.scatter_add_(1, chosen, shares.new_full(chosen.shape, -1.0))
        low.copy_(shares.mul_(weight * scale))
    return torch.cat(losses)
