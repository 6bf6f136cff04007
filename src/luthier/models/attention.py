"""Attention over flat tokens: many sequences on one axis, no padding, shared prefixes once.

The result is the same as attention over each sequence alone, with the gradient of all that share a
beginning. Computed here on CPUs, and on GPUs where `varlen` has no kernel for it. Registered with
transformers' attention interface, so that any model written against it runs flat.

Shapes: T tokens, K key-value heads, G query heads per key-value head, D head width; of a block B
members, L rows, S keys.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from luthier.errors import ModelError
from luthier.models import varlen
from luthier.models.layout import Block, FlatLayout, Scoring
from luthier.models.whole import Run, WholeBlock

FLAT = "luthier_flat"
"""Name of the implementation in transformers' attention registry."""

KEPT = 192
"""Keys of a block up to which its probabilities are kept for the backward pass: so much memory a
token at most. Of more keys they are computed again."""


def attend(
    query: Tensor, key: Tensor, value: Tensor, layout: FlatLayout, scoring: Scoring
) -> Tensor:
    """Attention of a flat batch.

    query [K, T, G, D], key and value [K, T, D] -> [K, T, G, D], in the query's dtype; softmax in
    float32.
    """
    mixed: Tensor = _FlatAttention.apply(query, key, value, layout, scoring)  # type: ignore[no-untyped-call]
    return mixed


def _taken(x: Tensor, index: Tensor) -> Tensor:
    """Tokens [B, N] of x [K, T, ...] as [K * B, N * ..., D]."""
    taken = x.index_select(1, index.flatten())
    return taken.view(len(x) * len(index), -1, x.shape[-1])


def _shares(
    query: Tensor, key: Tensor, block: Block | WholeBlock, groups: int, scoring: Scoring
) -> tuple[Tensor, Tensor | None]:
    """Softmax over the keys [K * B, L * G, S], and the slope that a cap gives the scores.

    query [K * B, L * G, D], key [K * B, S, D]. The softmax is computed in float32 and rounded to
    the query's dtype.
    """
    mask, slope = block.mask(query.dtype, groups, scoring.window), None
    if mask.dim() == 3:  # one for each member, the same for all heads
        mask = mask.repeat(len(query) // len(mask), 1, 1)
    if scoring.cap is None and mask.shape[-1] == key.shape[1]:
        # Scaled before it is rounded, and masked in the same pass.
        scores = torch.baddbmm(mask, query, key.transpose(1, 2), alpha=scoring.scale)
        return torch.softmax(scores, dim=-1), None
    scores = _scaled_product(query, key.transpose(1, 2), scoring.scale)
    if scoring.cap is not None:
        scores.div_(scoring.cap).tanh_()
        slope = 1 - scores.square()
        scores.mul_(scoring.cap)
    scores[..., -mask.shape[-1] :] += mask
    return torch.softmax(scores, dim=-1), slope


def _scaled_product(a: Tensor, b: Tensor, scale: float) -> Tensor:
    """Batched scale x a b, scaled before it is rounded."""
    return torch.baddbmm(a.new_empty(()), a, b, beta=0, alpha=scale)


class _FlatAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, layout: FlatLayout,
                scoring: Scoring) -> Tensor:  # fmt: skip
        groups = query.shape[2]
        output, kept = _with_one_more(query), []
        blocks, runs = _pieces(query, layout, scoring)
        for block in blocks:
            keys = block.keys_within(scoring.window)
            shares, _ = _shares(
                _taken(query, block.rows), _taken(key, keys), block, groups, scoring
            )
            if _is_kept(keys, scoring):
                kept.append(shares)
            mixed = torch.bmm(shares, _taken(value, keys))
            _put(output, block.places, mixed)
        kept += [run.forward(query, key, value, output, scoring.scale) for run in runs]
        ctx.save_for_backward(query, key, value, output if runs else None, *kept)
        ctx.layout, ctx.scoring = layout, scoring
        return output[:, :-1]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, output, *kept = ctx.saved_tensors
        scoring: Scoring = ctx.scoring
        next_kept = iter(kept)
        groups = query.shape[2]
        grad_query = _with_one_more(query)
        # A shared prefix collects the gradients of all its continuations: float32 keeps them exact.
        grad_key = torch.zeros_like(key, dtype=torch.promote_types(key.dtype, torch.float32))
        grad_value = torch.zeros_like(grad_key)
        blocks, runs = _pieces(query, ctx.layout, scoring)
        for block in blocks:
            keys = block.keys_within(scoring.window)
            rows, seen = _taken(query, block.rows), _taken(key, keys)
            if _is_kept(keys, scoring):
                shares, slope = next(next_kept), None
            else:
                shares, slope = _shares(rows, seen, block, groups, scoring)
            grad = gradients[0].index_select(1, block.rows.flatten())
            grad.index_fill_(1, block.padding, 0)
            grad = grad.view_as(rows)
            _add(grad_value, keys, torch.bmm(shares.transpose(1, 2), grad))
            grad_shares = torch.bmm(grad, _taken(value, keys).transpose(1, 2))
            grad_scores = torch._softmax_backward_data(grad_shares, shares, -1, shares.dtype)
            if slope is not None:
                grad_scores *= slope
            _put(grad_query, block.places, _scaled_product(grad_scores, seen, scoring.scale))
            _add(grad_key, keys, torch.bmm(grad_scores.transpose(1, 2), rows))
        grad_key.mul_(scoring.scale)
        for run, sums in zip(runs, next_kept, strict=True):
            computed = query, key, value, output
            parts = run.backward(gradients[0], computed, sums, scoring.scale)
            for whole, part in zip((grad_query, grad_key, grad_value), parts, strict=True):
                run.of(whole).copy_(part)
        return grad_query[:, :-1], grad_key.to(key.dtype), grad_value.to(value.dtype), None, None


def _pieces(
    query: Tensor, layout: FlatLayout, scoring: Scoring
) -> tuple[list[Block | WholeBlock], list[Run]]:
    """The blocks of a batch, and what a fused kernel computes where nothing bounds the scores."""
    num_heads, _, groups, _ = query.shape
    is_plain = groups == 1 and scoring.window is None and scoring.cap is None
    is_fused = is_plain and query.device.type == "cpu"
    pieces: Sequence[Any] = layout.blocks(num_heads, groups, query.device, is_fused=is_fused)
    runs = [piece for piece in pieces if isinstance(piece, Run)]
    return [piece for piece in pieces if not isinstance(piece, Run)], runs


def _is_kept(keys: Tensor, scoring: Scoring) -> bool:
    """Whether the probabilities of a block with keys [B, S] stay for the backward pass."""
    return scoring.cap is None and keys.shape[1] <= KEPT


def _with_one_more(x: Tensor) -> Tensor:
    """Empty memory for x [K, T, ...], and one token more, for what is dropped."""
    return x.new_empty((len(x), x.shape[1] + 1, *x.shape[2:]))


def _put(whole: Tensor, places: Tensor, part: Tensor) -> None:
    """Write [K * B, L * G, D] to places [B, L] of [K, T, G, D]."""
    part = part.view(len(whole), places.numel(), *whole.shape[2:])
    whole.index_copy_(1, places.flatten(), part)


def _add(total: Tensor, keys: Tensor, part: Tensor) -> None:
    """Add [K * B, S, D] to the tokens [B, S] of [K, T, D]."""
    part = part.to(total.dtype).view(len(total), keys.numel(), -1)
    total.index_add_(1, keys.flatten(), part)


class KeyValues(Protocol):
    """Keys and values of earlier tokens, which new queries attend to as well."""

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scoring: Scoring
    ) -> Tensor:
        """Remember the new key and value [K, T, D]; attention of query [K, T, G, D], same shape."""
        ...


def flat_attention_forward(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    flat_layout: FlatLayout | None = None,
    cache: KeyValues | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """transformers' attention interface: [1, heads, T, D] in, [1, T, heads, D] out.

    With a cache, the cache attends; without, the layout says who sees whom. Raises ModelError for
    kinds of attention that are not computed here, rather than leave them out.
    """
    assert query.shape[0] == 1, "flat batches have one token axis"
    if kwargs.get("s_aux") is not None:
        raise ModelError("the model's attention has sinks, which are not computed here")
    _, num_query_heads, num_tokens, width = query.shape
    num_heads = key.shape[1]
    grouped = query[0].unflatten(0, (num_heads, num_query_heads // num_heads)).transpose(1, 2)
    grouped, key, value = grouped.contiguous(), key[0].contiguous(), value[0].contiguous()
    scale = scaling if scaling is not None else width**-0.5
    scoring = Scoring(scale, kwargs.get("sliding_window"), kwargs.get("softcap"))
    if cache is not None:
        mixed = cache.attend(int(module.layer_idx), grouped, key, value, scoring)  # type: ignore[arg-type]
    else:
        assert flat_layout is not None, "a flat batch brings its layout"
        kernel = varlen.choose(grouped, flat_layout, scoring) or attend
        mixed = kernel(grouped, key, value, flat_layout, scoring)
    return mixed.permute(1, 0, 2, 3).reshape(1, num_tokens, num_query_heads, width), None


def _no_mask(*args: Any, **kwargs: Any) -> None:
    """The layout says who sees whom; transformers need build no mask."""


def register() -> None:
    """Make the implementation known to transformers under the name FLAT."""
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(FLAT, flat_attention_forward)
    AttentionMaskInterface.register(FLAT, _no_mask)
