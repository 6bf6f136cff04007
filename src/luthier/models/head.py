"""The language-model head and its loss, over supervised positions only, in bounded chunks.

Logits of a chunk live only long enough to give losses and gradients. Where the weight of every
position is known beforehand (`head_loss`), the gradient is formed in the forward pass, so that no
logits are kept or computed twice; where a loss is made of the log-likelihoods themselves
(`token_losses`), the backward pass computes them again. The same code serves training, preference
objectives and the loss of reference answers.

Shapes: S supervised positions, H hidden width, V vocabulary, C rows of a chunk.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from luthier.models.products import product

CHUNK_BYTES = 16 * 2**20
"""Bytes of logits held at once; the rows of a chunk follow from the vocabulary."""

BLOCK_ROWS = 8
"""Rows whose softmax is taken at once in float32 on a CPU, so that it stays in the cache."""


@dataclass(frozen=True, slots=True)
class Head:
    """What turns hidden states into logits: cap(scale x (hidden W^T + bias))."""

    weight: Tensor
    """[V, H]."""
    bias: Tensor | None = None
    """[V]."""
    scale: float = 1.0
    """Some architectures scale their logits (Cohere, Granite)."""
    cap: float | None = None
    """Others bound them: cap x tanh(logits / cap) (Gemma 2)."""

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits [C, V] of hidden states [C, H], in their dtype; the memory is new."""
        logits = product(hidden, self.weight)
        if self.bias is not None:
            logits += self.bias
        if self.scale != 1:
            logits *= self.scale
        if self.cap is not None:
            logits.div_(self.cap).tanh_().mul_(self.cap)
        return logits

    def detached(self) -> "Head":
        """The same head, outside of any graph."""
        bias = None if self.bias is None else self.bias.detach()
        return Head(self.weight.detach(), bias, self.scale, self.cap)


SCALES = ("logit_scale", "lm_head_multiplier")
"""What logits are multiplied by, in the configurations of transformers."""
DIVISORS = ("logits_scaling", "logits_mup_width_multiplier")
"""What they are divided by, in all but MULTIPLY."""
MULTIPLY = ("hyperclovax",)
CAPS = ("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap")


def head_of(layer: Any, config: Any) -> Head:
    """The head of a model's last layer, scaled and capped as its text configuration says."""
    scale, divisor = _setting(config, SCALES) or 1.0, _setting(config, DIVISORS) or 1.0
    scale = scale * divisor if config.model_type in MULTIPLY else scale / divisor
    return Head(layer.weight, getattr(layer, "bias", None), scale, _setting(config, CAPS))


def _setting(config: Any, names: tuple[str, ...]) -> float | None:
    """What a configuration says under the first of the names it knows."""
    found = (getattr(config, name, None) for name in names)
    return next((float(value) for value in found if value), None)


class HeadLoss(NamedTuple):
    """Losses of supervised positions: the weighted sum to minimise, and each position's own."""

    total: Tensor
    """Sum over positions of weight x negative log-likelihood; differentiable; float32 scalar."""
    each: Tensor
    """Negative log-likelihood in nats per position [S], float32, detached."""


def head_loss(hidden: Tensor, head: Head, targets: Tensor, weights: Tensor) -> HeadLoss:
    """Cross-entropy of hidden states against target ids, through a frozen or trained head.

    hidden [S, H], targets [S] int64, weights [S] float32. Computed in the dtype of `hidden`, summed
    in float32. Where no gradients are wanted, none are formed.
    """
    if not torch.is_grad_enabled():
        each = token_losses(hidden, head, targets)
        return HeadLoss((each * weights).sum(), each)
    total, each = _HeadLoss.apply(hidden, head.weight, head.bias, head, targets, weights)  # type: ignore[no-untyped-call]
    return HeadLoss(total, each)


def token_losses(hidden: Tensor, head: Head, targets: Tensor) -> Tensor:
    """Negative log-likelihood in nats per position [S], float32, differentiable.

    hidden [S, H], targets [S] int64.
    """
    return cast(Tensor, _TokenLosses.apply(hidden, head.weight, head.bias, head, targets))  # type: ignore[no-untyped-call]


def rows_of_chunk(vocabulary: int, element_size: int) -> int:
    """Rows whose logits fit the budget; at least 16, so that matrices stay efficient."""
    return max(16, CHUNK_BYTES // (element_size * vocabulary))


def _chunks(head: Head, num_rows: int) -> Iterator[slice]:
    step = rows_of_chunk(len(head.weight), head.weight.element_size())
    for start in range(0, num_rows, step):
        yield slice(start, start + step)


class _Gradients:
    """Gradients of hidden states, weight and bias, gathered over chunks."""

    def __init__(self, needs: tuple[bool, ...], hidden: Tensor, head: Head) -> None:
        self.hidden = torch.empty_like(hidden) if needs[0] else None
        # Summed over chunks: float32 keeps the sum exact.
        self.weight = _wide_zeros(head.weight) if needs[1] else None
        self.bias = _wide_zeros(head.bias) if needs[2] and head.bias is not None else None

    def add(self, rows: slice, slopes: Tensor, hidden: Tensor, head: Head) -> None:
        """Take in the slopes [C, V] of a chunk."""
        if self.hidden is not None:
            torch.mm(slopes, head.weight, out=self.hidden[rows])
        if self.weight is not None:
            self.weight += (slopes.t() @ hidden[rows]).to(self.weight.dtype)
        if self.bias is not None:
            self.bias += slopes.sum(0, dtype=self.bias.dtype)


def _wide_zeros(x: Tensor) -> Tensor:
    return torch.zeros_like(x, dtype=torch.promote_types(x.dtype, torch.float32))


class _HeadLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, head: Head,
                targets: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:  # fmt: skip
        head = head.detached()
        each = torch.empty(len(targets), dtype=torch.float32, device=hidden.device)
        gradients = _Gradients(ctx.needs_input_grad[:3], hidden, head)
        for rows in _chunks(head, len(targets)):
            logits = head.logits(hidden[rows])
            each[rows] = _to_slopes(logits, targets[rows], weights[rows], head)
            gradients.add(rows, logits, hidden, head)
        ctx.save_for_backward(gradients.hidden, gradients.weight, gradients.bias)
        ctx.dtype = weight.dtype
        ctx.mark_non_differentiable(each)
        return (each * weights).sum(), each

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        factor = gradients[0]
        hidden, weight, bias = ctx.saved_tensors
        if hidden is not None:
            # A rounded factor would scale all gradients alike: it stays in float32.
            hidden = (hidden.to(factor.dtype) * factor).to(hidden.dtype)
        weight = None if weight is None else (weight * factor).to(ctx.dtype)
        bias = None if bias is None else (bias * factor).to(ctx.dtype)
        return hidden, weight, bias, None, None, None


class _TokenLosses(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, head: Head,
                targets: Tensor) -> Tensor:  # fmt: skip
        ctx.save_for_backward(hidden, weight, bias, targets)
        ctx.settings = head.scale, head.cap
        head = head.detached()
        each = torch.empty(len(targets), dtype=torch.float32, device=hidden.device)
        unweighted = torch.ones(len(targets), device=hidden.device)
        for rows in _chunks(head, len(targets)):
            each[rows] = _to_slopes(
                head.logits(hidden[rows]), targets[rows], unweighted[rows], head, needed=False
            )
        return each

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, targets = ctx.saved_tensors
        head = Head(weight, bias, *ctx.settings)
        found = _Gradients(ctx.needs_input_grad[:3], hidden, head)
        for rows in _chunks(head, len(targets)):
            logits = head.logits(hidden[rows])
            _to_slopes(logits, targets[rows], gradients[0][rows], head)
            found.add(rows, logits, hidden, head)
        grad_weight = None if found.weight is None else found.weight.to(weight.dtype)
        grad_bias = None if found.bias is None else found.bias.to(bias.dtype)
        return found.hidden, grad_weight, grad_bias, None, None


def _to_slopes(
    logits: Tensor, targets: Tensor, weights: Tensor, head: Head, *, needed: bool = True
) -> Tensor:
    """Losses [C] of logits [C, V], which become d loss / d (hidden W^T + bias), if needed.

    The slope of a logit is (softmax - one-hot) x weight, then through scale and cap.
    """
    losses = []
    block = BLOCK_ROWS if logits.device.type == "cpu" else len(logits)
    parts = (part.split(block) for part in (logits, targets[:, None], weights[:, None]))
    for low, chosen, weight in zip(*parts, strict=True):
        shares = torch.softmax(low, dim=-1, dtype=torch.promote_types(low.dtype, torch.float32))
        # The largest share is at least 1 / V, so its logarithm is safe: no second exponential.
        log_sum = low.amax(dim=-1).to(shares.dtype) - shares.amax(dim=-1).log()
        losses.append(log_sum - low.gather(1, chosen)[:, 0].to(shares.dtype))
        if not needed:
            continue
        shares.scatter_add_(1, chosen, shares.new_full(chosen.shape, -1.0))
        shares.mul_(weight * head.scale)
        if head.cap is not None:
            shares.mul_(1 - (low.to(shares.dtype) / head.cap).square_())
        low.copy_(shares)
    return torch.cat(losses)
