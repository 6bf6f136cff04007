"""The layout of texts that are seen whole: every token of a text sees all others of it.

What encoders compute, beside `layout`, which is for tokens that see only what stands before them.
Texts of like length form a block; those a little shorter than others are padded in it, and what
pads them is masked.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from luthier.models.layout import SCORES, FlatLayout

ROUND_TO = 16
"""Rows of a block are a multiple of this: kernels are kept per shape."""


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

    def _cut(self, num_heads: int, groups: int, device: torch.device) -> list[WholeBlock]:  # type: ignore[override] # blocks of another kind, used alike
        alike: dict[int, list[tuple[int, int]]] = {}
        start = 0
        for length in self.lengths:
            if length:
                rounded = -(-length // ROUND_TO) * ROUND_TO
                alike.setdefault(rounded, []).append((start, length))
            start += length
        blocks = []
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
