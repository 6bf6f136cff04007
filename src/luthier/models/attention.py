"""Attention over flat tokens: many sequences on one axis, no padding, shared prefixes once.

A flat batch is a forest of segments on one token axis. A segment sees the segments it continues
(its chain of parents) and, causally, itself; so sequences that begin alike share one copy of the
beginning, in memory and in time, with the gradient of all of them. The result is the same as
attention over each sequence alone. Registered with transformers' attention interface, so that any
model written against it runs flat.

Shapes: T tokens, K key-value heads, G query heads per key-value head, D head width, L tile rows,
S keys a tile sees.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

import torch
from torch import Tensor

from luthier.errors import ModelError

FLAT = "luthier_flat"
"""Name of the implementation in transformers' attention registry."""

TILE = 256
"""Query rows computed at once: bounds the score matrix, and skips keys that lie ahead."""


@dataclass(frozen=True, slots=True)
class Tile:
    """Query rows [start, end) and the key ranges they see; the last range ends at `end`."""

    start: int
    end: int
    keys: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class FlatLayout:
    """Where the segments of a flat batch lie, cut into tiles."""

    tiles: tuple[Tile, ...]

    @classmethod
    def after(cls, prefix: int, lengths: Sequence[int]) -> "FlatLayout":
        """Layout of sequences whose first `prefix` keys are already there, ahead of the queries.

        Query rows count from the first new token, keys from the prefix's first.
        """
        forest = cls.of((prefix, *lengths), (-1, *(0 for _ in lengths)))
        return cls(
            tuple(
                Tile(tile.start - prefix, tile.end - prefix, tile.keys)
                for tile in forest.tiles
                if tile.start >= prefix
            )
        )

    @classmethod
    def of(cls, lengths: Sequence[int], parents: Sequence[int] | None = None) -> "FlatLayout":
        """Layout of segments of these lengths; parents[i] is the segment i continues, or -1.

        A parent stands before its children. Empty segments are allowed.
        """
        parents = [-1] * len(lengths) if parents is None else parents
        chains: list[tuple[tuple[int, int], ...]] = []
        tiles: list[Tile] = []
        start = 0
        for i, (length, parent) in enumerate(zip(lengths, parents, strict=True)):
            assert -1 <= parent < i, "a parent stands before its children"
            above = chains[parent] if parent >= 0 else ()
            end = start + length
            chains.append(_joined((*above, (start, end))))
            for row in range(start, end, TILE):
                last = min(row + TILE, end)
                tiles.append(Tile(row, last, _joined((*above, (start, last)))))
            start = end
        return cls(tuple(tiles))


def _joined(ranges: tuple[tuple[int, int], ...]) -> tuple[tuple[int, int], ...]:
    """Neighbouring ranges as one, empty ones gone."""
    joined: list[tuple[int, int]] = []
    for start, end in ranges:
        if joined and joined[-1][1] == start:
            joined[-1] = (joined[-1][0], end)
        elif end > start:
            joined.append((start, end))
    return tuple(joined)


def attend(query: Tensor, key: Tensor, value: Tensor, layout: FlatLayout, scale: float) -> Tensor:
    """Attention of a flat batch.

    query [K, T, G, D], key and value [K, T, D] -> [K, T, G, D], in the query's dtype; softmax in
    float32. Probabilities are recomputed in the backward pass, never stored.
    """
    mixed: Tensor = _FlatAttention.apply(query, key, value, layout, scale)  # type: ignore[no-untyped-call]
    return mixed


def _gathered(x: Tensor, ranges: tuple[tuple[int, int], ...]) -> Tensor:
    parts = [x[:, start:end] for start, end in ranges]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


@cache
def _ahead(dtype: torch.dtype, device: torch.device) -> Tensor:
    """[TILE, 1, TILE]: -inf where a key lies ahead of the query, else 0."""
    full = torch.full((TILE, TILE), -torch.inf, dtype=dtype, device=device)
    return full.triu_(1)[:, None]


def _shares(query: Tensor, key: Tensor, scale: float) -> Tensor:
    """Softmax over the keys, [K, L * G, S] in at least float32.

    query [K, L, G, D], key [K, S, D]. The last L keys are the query rows' own, seen causally; L is
    at most TILE.
    """
    rows, groups = query.shape[1:3]
    scores = _scaled_product(query.flatten(1, 2), key.transpose(1, 2), scale)
    if rows > 1:
        own = scores.unflatten(1, (rows, groups))[..., -rows:]
        own.add_(_ahead(scores.dtype, scores.device)[:rows, :, :rows])
    return torch.softmax(scores, dim=-1, dtype=torch.promote_types(scores.dtype, torch.float32))


def _scaled_product(a: Tensor, b: Tensor, scale: float) -> Tensor:
    """Batched scale x a b, scaled before it is rounded."""
    return torch.baddbmm(a.new_empty(()), a, b, beta=0, alpha=scale)


class _FlatAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, layout: FlatLayout,
                scale: float) -> Tensor:  # fmt: skip
        output = torch.empty_like(query, memory_format=torch.contiguous_format)
        for tile in layout.tiles:
            rows = slice(tile.start, tile.end)
            shares = _shares(query[:, rows], _gathered(key, tile.keys), scale)
            mixed = torch.bmm(shares.to(value.dtype), _gathered(value, tile.keys))
            output[:, rows] = mixed.view_as(output[:, rows])
        ctx.save_for_backward(query, key, value)
        ctx.layout, ctx.scale = layout, scale
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value = ctx.saved_tensors
        grad_output = gradients[0].contiguous()
        grad_query = torch.empty_like(query)
        # A shared prefix collects the gradients of all its continuations: float32 keeps them exact.
        grad_key = torch.zeros_like(key, dtype=torch.promote_types(key.dtype, torch.float32))
        grad_value = torch.zeros_like(grad_key)
        for tile in ctx.layout.tiles:
            rows = slice(tile.start, tile.end)
            tile_key, tile_value = _gathered(key, tile.keys), _gathered(value, tile.keys)
            tile_query, tile_grad = query[:, rows].flatten(1, 2), grad_output[:, rows].flatten(1, 2)
            shares = _shares(query[:, rows], tile_key, ctx.scale)
            low = shares.to(value.dtype)
            _scatter(grad_value, torch.bmm(low.transpose(1, 2), tile_grad), tile.keys)
            grad_shares = torch.bmm(tile_grad, tile_value.transpose(1, 2)).to(shares.dtype)
            grad_scores = torch._softmax_backward_data(grad_shares, shares, -1, shares.dtype)
            flat = grad_scores.to(query.dtype)
            grad_query[:, rows] = _scaled_product(flat, tile_key, ctx.scale).view_as(
                grad_query[:, rows]
            )
            _scatter(grad_key, torch.bmm(flat.transpose(1, 2), tile_query), tile.keys)
        grad_key.mul_(ctx.scale)
        return grad_query, grad_key.to(key.dtype), grad_value.to(value.dtype), None, None


def _scatter(total: Tensor, part: Tensor, ranges: tuple[tuple[int, int], ...]) -> None:
    offset = 0
    for start, end in ranges:
        total[:, start:end] += part[:, offset : offset + end - start]
        offset += end - start


class KeyValues(Protocol):
    """Keys and values of earlier tokens, which new queries attend to as well."""

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """Remember the new key and value [K, T, D]; attention of query [K, T, G, D], same shape."""
        ...


def _refuse_unknown(settings: dict[str, Any], num_tokens: int) -> None:
    window = settings.get("sliding_window")
    unknown = [name for name in ("softcap", "s_aux") if settings.get(name) is not None]
    if window is not None and num_tokens > window:
        unknown.append(f"a sliding window of {window} tokens")
    if unknown:
        raise ModelError(
            f"the model's attention uses {', '.join(unknown)}, which is not supported yet",
            advice="choose another architecture, or shorten the examples below the window",
        )


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
    _refuse_unknown(kwargs, key.shape[2])
    _, num_query_heads, num_tokens, width = query.shape
    num_heads = key.shape[1]
    grouped = query[0].unflatten(0, (num_heads, num_query_heads // num_heads)).transpose(1, 2)
    grouped, key, value = grouped.contiguous(), key[0].contiguous(), value[0].contiguous()
    scale = scaling if scaling is not None else width**-0.5
    if cache is not None:
        mixed = cache.attend(int(module.layer_idx), grouped, key, value, scale)  # type: ignore[arg-type]
    else:
        assert flat_layout is not None, "a flat batch brings its layout"
        mixed = attend(grouped, key, value, flat_layout, scale)
    return mixed.permute(1, 0, 2, 3).reshape(1, num_tokens, num_query_heads, width), None


def _no_mask(*args: Any, **kwargs: Any) -> None:
    """The layout says who sees whom; transformers need build no mask."""


def register() -> None:
    """Make the implementation known to transformers under the name FLAT."""
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(FLAT, flat_attention_forward)
    AttentionMaskInterface.register(FLAT, _no_mask)
