"""Attention of a flat batch by kernels made for GPUs; the results are those of `attention.attend`.

What serves, serves: torch's varlen attention (FlashAttention; Dao 2023) where no beginning is
shared and nothing bounds the scores; FlexAttention, compiled, for any forest; else scaled dot
product attention, segment by segment. All take and give the shapes of `attend`, and go through
torch's own gradients. Segments that have keys only are left to `attend`.
"""

from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from luthier.models.layout import FlatLayout, Scoring

FLASH_WIDTH = 256
"""Widest heads, in multiples of 8, that torch's varlen attention takes."""

Kernel = Callable[[Tensor, Tensor, Tensor, FlatLayout, Scoring], Tensor]


def choose(query: Tensor, layout: FlatLayout, scoring: Scoring) -> Kernel | None:
    """The kernel for a batch on a GPU; None where `attend` itself is to compute it."""
    if query.device.type != "cuda" or layout.num_known:
        return None
    if fits_flash(query, layout, scoring) and _has_flash(query.device):
        return flash
    if not layout.is_causal:
        return None
    if find_spec("triton") is not None:
        return flex
    return one_by_one if scoring.cap is None else None


def fits_flash(query: Tensor, layout: FlatLayout, scoring: Scoring) -> bool:
    """Whether torch's varlen attention computes such a batch."""
    width = query.shape[-1]
    is_fitting = query.dtype in (torch.bfloat16, torch.float16) and scoring.cap is None
    return is_fitting and not layout.shares and width <= FLASH_WIDTH and width % 8 == 0


def flash(
    query: Tensor, key: Tensor, value: Tensor, layout: FlatLayout, scoring: Scoring
) -> Tensor:
    """By torch's varlen attention; what `fits_flash`."""
    from torch.nn.attention.varlen import varlen_attn

    num_heads, _, groups, _ = query.shape
    lengths = [length for length in layout.lengths if length]

    def bounds() -> Tensor:
        ends = torch.tensor([0, *lengths]).cumsum(0)
        return ends.to(device=query.device, dtype=torch.int32)

    at = layout.once(("bounds", query.device), bounds)
    window = -1 if scoring.window is None else scoring.window - 1
    mixed: Any = varlen_attn(
        query.transpose(0, 1).flatten(1, 2),
        key.transpose(0, 1).contiguous(),
        value.transpose(0, 1).contiguous(),
        at, at, max(lengths), max(lengths),
        scale=scoring.scale,
        window_size=(window, 0 if layout.is_causal else window),
        enable_gqa=groups > 1,
    )  # fmt: skip
    by_head: Tensor = mixed.unflatten(1, (num_heads, groups)).transpose(0, 1)
    return by_head


def flex(query: Tensor, key: Tensor, value: Tensor, layout: FlatLayout, scoring: Scoring) -> Tensor:
    """By FlexAttention: a row sees a key that stands before it in a segment of its chain."""
    num_heads, _, groups, _ = query.shape
    mask = layout.once(
        ("flex", query.device, scoring.window), lambda: _visible(layout, scoring, query.device)
    )
    cap = scoring.cap

    def bounded(score: Tensor, *place: Tensor) -> Tensor:
        return score if cap is None else cap * torch.tanh(score / cap)

    mixed = _flex_attention(query.device.type)(
        query.transpose(1, 2).flatten(0, 1)[None],
        key[None],
        value[None],
        score_mod=None if cap is None else bounded,
        block_mask=mask,
        scale=scoring.scale,
        enable_gqa=groups > 1,
    )
    by_head: Tensor = mixed[0].unflatten(0, (num_heads, groups)).transpose(1, 2)
    return by_head


@cache
def _flex_attention(device: str) -> Callable[..., Any]:
    """FlexAttention; on a GPU compiled, without which it would hold all scores."""
    from torch.nn.attention.flex_attention import flex_attention

    plain: Callable[..., Any] = flex_attention
    return torch.compile(plain, dynamic=True) if device == "cuda" else plain


def _visible(layout: FlatLayout, scoring: Scoring, device: torch.device) -> Any:
    from torch.nn.attention.flex_attention import create_block_mask

    segment, depth, sees = (x.to(device) for x in layout.ancestry())
    window = scoring.window

    def visible(batch: Tensor, head: Tensor, row: Tensor, key: Tensor) -> Tensor:
        seen = (key <= row) & sees[segment[row], segment[key]]
        return seen if window is None else seen & (depth[row] - depth[key] < window)

    count = layout.num_rows
    return create_block_mask(visible, None, None, count, count, device=str(device))


def one_by_one(
    query: Tensor, key: Tensor, value: Tensor, layout: FlatLayout, scoring: Scoring
) -> Tensor:
    """By scaled dot product attention, one segment after the other; no cap."""
    num_heads, _, groups, _ = query.shape
    parts = []
    for rows, keys in layout.chains(query.device):
        own = query.index_select(1, rows).transpose(1, 2).flatten(0, 1)
        seen, values = key.index_select(1, keys), value.index_select(1, keys)
        mixed = functional.scaled_dot_product_attention(
            own[None], seen[None], values[None],
            attn_mask=_unhidden(len(rows), len(keys), scoring.window, query.device),
            scale=scoring.scale, enable_gqa=groups > 1,
        )  # fmt: skip
        parts.append(mixed[0].unflatten(0, (num_heads, groups)).transpose(1, 2))
    return torch.cat(parts, dim=1)


def _unhidden(num_rows: int, num_keys: int, window: int | None, device: torch.device) -> Tensor:
    """[rows, keys]: whether a row sees a key; the rows are the last of the keys."""
    rows = torch.arange(num_keys - num_rows, num_keys, device=device)[:, None]
    keys = torch.arange(num_keys, device=device)
    seen = keys <= rows
    return seen if window is None else seen & (rows - keys < window)


@cache
def _has_flash(device: torch.device) -> bool:
    """Whether torch brings varlen attention, and the GPU can run it."""
    return find_spec("torch.nn.attention.varlen") is not None and torch.cuda.get_device_capability(
        device
    ) >= (8, 0)
