"""The layout of texts that are seen whole: every token of a text sees all others of it.

What encoders compute, beside `layout`, which is for tokens that see only what stands before them.
Long texts are computed as they lie, neighbours of one length together. Short ones of like length
form a block; those a little shorter than others are padded in it, and what pads them is masked.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import ClassVar, cast

import torch
from torch import Tensor

from luthier.models.layout import SCORES, FlatLayout

ROUND_TO = 16
"""Rows of a block are a multiple of this: kernels are kept per shape."""

LONG = 176
"""Tokens of a text from which a fused kernel is faster: beside blocks 1.3 times at 192 tokens, 1.5
at 256, and 0.6 at 48 (forward and backward, two cores without AVX-512)."""


@dataclass(frozen=True, slots=True)
class Run:
    """Neighbouring texts of one length, computed by torch's fused attention for CPUs.

    That keeps no probabilities: FlashAttention (Dao 2023), which takes tokens as they lie.
    """

    start: int
    count: int
    length: int

    def of(self, x: Tensor) -> Tensor:
        """Its tokens of x [K, T, ..., D] as [count, K, length, D]; a view, with one query head."""
        part = x[:, self.start : self.start + self.count * self.length]
        return part.reshape(len(x), self.count, self.length, x.shape[-1]).transpose(0, 1)

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, output: Tensor, scale: float
    ) -> Tensor:
        """Write what comes out into `output`; the logarithms of the sums, for `backward`."""
        found, sums = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            self.of(query), self.of(key), self.of(value), scale=scale
        )
        self.of(output).copy_(found)
        return cast(Tensor, sums)

    def backward(
        self, grad: Tensor, computed: Sequence[Tensor], sums: Tensor, scale: float
    ) -> tuple[Tensor, ...]:
        """Gradients of query, key and value, each [count, K, length, D].

        `computed` are query, key, value and output.
        """
        found: tuple[Tensor, ...] = (
            torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
                self.of(grad), *map(self.of, computed), sums, 0.0, False, scale=scale
            )
        )
        return found


@dataclass(frozen=True)
class WholeBlock:
    """B texts of at most L tokens; each row sees all keys of its text, within a window if any."""

    rows: Tensor
    """[B, L] int64: the tokens that ask, and that are seen; a text's last one repeated."""
    places: Tensor
    """[B, L] int64: where their results go; those of repeated rows to the place after the last."""
    padding: Tensor
    """[N] int64: which of the B x L rows are repeats."""
    lengths: Tensor
    """[B] int64."""
    masks: dict[tuple[torch.dtype, int, int | None], Tensor] = field(default_factory=dict)

    def keys_within(self, window: int | None) -> Tensor:
        """[B, L]: the keys; a window lies around each row and leaves none out for all."""
        return self.rows

    def mask(self, dtype: torch.dtype, groups: int, window: int | None) -> Tensor:
        """[B, 1 or L * groups, L] of 0, and -inf where a row does not see a key.

        A row sees keys less than `window` away from it, on both sides; None: all of its text.
        """
        if (dtype, groups, window) not in self.masks:
            at = torch.arange(self.rows.shape[1], device=self.rows.device)
            unseen = (at >= self.lengths[:, None])[:, None]
            if window is not None:
                far = (at[:, None] - at).abs() >= window
                # What pads a text sees its own place, so that no row sees nothing.
                unseen = (unseen | far) & (at[:, None] != at)
                unseen = unseen.repeat_interleave(groups, dim=1)
            mask = torch.zeros(unseen.shape, dtype=dtype, device=self.rows.device)
            self.masks[dtype, groups, window] = mask.masked_fill_(unseen, -torch.inf)
        return self.masks[dtype, groups, window]


@dataclass(frozen=True)
class WholeLayout(FlatLayout):
    """Where the texts of a flat batch lie, when each of their tokens sees the whole text."""

    is_causal: ClassVar[bool] = False

    def _cut(  # type: ignore[override] # blocks of other kinds, used alike
        self, num_heads: int, groups: int, device: torch.device, is_fused: bool
    ) -> list[WholeBlock | Run]:
        alike: dict[int, list[tuple[int, int]]] = {}
        blocks: list[WholeBlock | Run] = []
        start = 0
        for length, neighbours in groupby(self.lengths):
            count = len(list(neighbours))
            if is_fused and length and length >= LONG:
                blocks.append(Run(start, count, length))
            elif length:
                rounded = -(-length // ROUND_TO) * ROUND_TO
                places = [(start + i * length, length) for i in range(count)]
                alike.setdefault(rounded, []).extend(places)
            start += count * length
        for rounded, texts in alike.items():
            count = max(1, SCORES // (num_heads * groups * rounded * rounded))
            blocks += [
                self._whole_block(rounded, texts[i : i + count], device)
                for i in range(0, len(texts), count)
            ]
        return blocks

    def _whole_block(
        self, width: int, texts: Sequence[tuple[int, int]], device: torch.device
    ) -> WholeBlock:
        starts, lengths = torch.tensor(texts).unbind(1)
        at = torch.arange(width)
        is_text = at < lengths[:, None]
        rows = starts[:, None] + at.minimum(lengths[:, None] - 1)
        return WholeBlock(
            rows=rows.to(device),
            places=torch.where(is_text, rows, self.num_rows).to(device),
            padding=(~is_text).flatten().nonzero()[:, 0].to(device),
            lengths=lengths.to(device),
        )
