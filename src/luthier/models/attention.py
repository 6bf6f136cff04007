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
from typing import Any, NamedTuple, Protocol

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

    def within(self, window: int | None) -> tuple[tuple[tuple[int, int], ...], int | None]:
        """Key ranges that any row sees through a window, and what each row does not see of them.

        A row sees the last `window` keys up to its own. Of the ranges returned, row r does not see
        key j where j - r is at most the number returned; None hides nothing.
        """
        rows = self.end - self.start
        first = sum(end - start for start, end in self.keys) - rows
        if window is None or first + rows <= window:
            return self.keys, None
        skipped = max(0, first - window + 1)
        return _without_first(self.keys, skipped), first - window - skipped


class Scoring(NamedTuple):
    """How queries and keys become scores."""

    scale: float
    window: int | None = None
    """Keys a query sees, its own included; None: all before it."""
    cap: float | None = None
    """Scores are cap x tanh(score / cap) (Gemma 2)."""


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


def _without_first(ranges: tuple[tuple[int, int], ...], count: int) -> tuple[tuple[int, int], ...]:
    """The ranges less their first `count` members."""
    kept = []
    for start, end in ranges:
        cut = min(count, end - start)
        count -= cut
        if start + cut < end:
            kept.append((start + cut, end))
    return tuple(kept)


def _joined(ranges: tuple[tuple[int, int], ...]) -> tuple[tuple[int, int], ...]:
    """Neighbouring ranges as one, empty ones gone."""
    joined: list[tuple[int, int]] = []
    for start, end in ranges:
        if joined and joined[-1][1] == start:
            joined[-1] = (joined[-1][0], end)
        elif end > start:
            joined.append((start, end))
    return tuple(joined)


def attend(
    query: Tensor, key: Tensor, value: Tensor, layout: FlatLayout, scoring: Scoring
) -> Tensor:
    """Attention of a flat batch.

    query [K, T, G, D], key and value [K, T, D] -> [K, T, G, D], in the query's dtype; softmax in
    float32. Probabilities are recomputed in the backward pass, never stored.
    """
    mixed: Tensor = _FlatAttention.apply(query, key, value, layout, scoring)  # type: ignore[no-untyped-call]
    return mixed


def _gathered(x: Tensor, ranges: tuple[tuple[int, int], ...]) -> Tensor:
    parts = [x[:, start:end] for start, end in ranges]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


@cache
def _ahead(dtype: torch.dtype, device: torch.device) -> Tensor:
    """[TILE, 1, TILE]: -inf where a key lies ahead of the query, else 0."""
    full = torch.full((TILE, TILE), -torch.inf, dtype=dtype, device=device)
    return full.triu_(1)[:, None]


def _scores(query: Tensor, key: Tensor, scoring: Scoring) -> Tensor:
    """Scores [K, L * G, S] before any mask; query [K, L, G, D], key [K, S, D]."""
    scores = _scaled_product(query.flatten(1, 2), key.transpose(1, 2), scoring.scale)
    if scoring.cap is not None:
        scores.div_(scoring.cap).tanh_().mul_(scoring.cap)
    return scores


def _shares(scores: Tensor, rows: int, hidden: int | None) -> Tensor:
    """Softmax over the keys, [K, L * G, S] in at least float32; overwrites the scores.

    The last L keys are the query rows' own, seen causally; L is at most TILE. Row r does not see
    key j where j - r is at most `hidden`.
    """
    by_row = scores.unflatten(1, (rows, -1))
    if rows > 1:
        by_row[..., -rows:].add_(_ahead(scores.dtype, scores.device)[:rows, :, :rows])
    if hidden is not None:
        behind = torch.full_like(scores[0, :rows], -torch.inf).tril_(hidden)
        by_row.add_(behind[:, None])
    return torch.softmax(scores, dim=-1, dtype=torch.promote_types(scores.dtype, torch.float32))


def _scaled_product(a: Tensor, b: Tensor, scale: float) -> Tensor:
    """Batched scale x a b, scaled before it is rounded."""
    return torch.baddbmm(a.new_empty(()), a, b, beta=0, alpha=scale)


class _FlatAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, layout: FlatLayout,
                scoring: Scoring) -> Tensor:  # fmt: skip
        output = torch.empty_like(query, memory_format=torch.contiguous_format)
        for tile in layout.tiles:
            rows = slice(tile.start, tile.end)
            keys, hidden = tile.within(scoring.window)
            scores = _scores(query[:, rows], _gathered(key, keys), scoring)
            shares = _shares(scores, tile.end - tile.start, hidden)
            mixed = torch.bmm(shares.to(value.dtype), _gathered(value, keys))
            output[:, rows] = mixed.view_as(output[:, rows])
        ctx.save_for_backward(query, key, value)
        ctx.layout, ctx.scoring = layout, scoring
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value = ctx.saved_tensors
        scoring: Scoring = ctx.scoring
        grad_output = gradients[0].contiguous()
        grad_query = torch.empty_like(query)
        # A shared prefix collects the gradients of all its continuations: float32 keeps them exact.
        grad_key = torch.zeros_like(key, dtype=torch.promote_types(key.dtype, torch.float32))
        grad_value = torch.zeros_like(grad_key)
        for tile in ctx.layout.tiles:
            rows = slice(tile.start, tile.end)
            keys, hidden = tile.within(scoring.window)
            tile_key, tile_value = _gathered(key, keys), _gathered(value, keys)
            tile_query, tile_grad = query[:, rows].flatten(1, 2), grad_output[:, rows].flatten(1, 2)
            scores = _scores(query[:, rows], tile_key, scoring)
            bend = None if scoring.cap is None else 1 - (scores.float() / scoring.cap).square_()
            shares = _shares(scores, tile.end - tile.start, hidden)
            low = shares.to(value.dtype)
            _scatter(grad_value, torch.bmm(low.transpose(1, 2), tile_grad), keys)
            grad_shares = torch.bmm(tile_grad, tile_value.transpose(1, 2)).to(shares.dtype)
            grad_scores = torch._softmax_backward_data(grad_shares, shares, -1, shares.dtype)
            if bend is not None:
                grad_scores *= bend
            flat = grad_scores.to(query.dtype)
            grad_query[:, rows] = _scaled_product(flat, tile_key, scoring.scale).view_as(
                grad_query[:, rows]
            )
            _scatter(grad_key, torch.bmm(flat.transpose(1, 2), tile_query), keys)
        grad_key.mul_(scoring.scale)
        return grad_query, grad_key.to(key.dtype), grad_value.to(value.dtype), None, None


def _scatter(total: Tensor, part: Tensor, ranges: tuple[tuple[int, int], ...]) -> None:
    offset = 0
    for start, end in ranges:
        total[:, start:end] += part[:, offset : offset + end - start]
        offset += end - start


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
        mixed = attend(grouped, key, value, flat_layout, scoring)
    return mixed.permute(1, 0, 2, 3).reshape(1, num_tokens, num_query_heads, width), None


def _no_mask(*args: Any, **kwargs: Any) -> None:
    """The layout says who sees whom; transformers need build no mask."""


def register() -> None:
    """Make the implementation known to transformers under the name FLAT."""
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(FLAT, flat_attention_forward)
    AttentionMaskInterface.register(FLAT, _no_mask)
