"""Texts as one flat batch, for models that turn a text into a vector or an answer.

Each distinct text stands in the batch once, however often it is asked for; common beginnings are
not shared, for encoders see a text as a whole. The batch ends in a few tokens that nobody sees.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from luthier.models.flat import ROUND_TO
from luthier.models.layout import FlatLayout
from luthier.models.whole import WholeLayout
from luthier.tokens import EncodedText


@dataclass(frozen=True, slots=True)
class TextBatch:
    """T tokens of D distinct texts on one axis, and which of them each of N texts asked for is."""

    input_ids: Tensor
    """[T] int64."""
    position_ids: Tensor
    """[T] int64, counted from the start of each text."""
    type_ids: Tensor
    """[T] int64: 0 for a first text, 1 for a second one."""
    layout: FlatLayout
    starts: Tensor
    """[D] int64: first token of each text."""
    lengths: Tensor
    """[D] int64."""
    owners: Tensor
    """[T] int64: the text a token belongs to; D for those that nobody sees."""
    wanted: Tensor
    """[N] int64: the distinct text that each text asked for is."""
    num_tokens: int
    """Tokens of the texts as asked for: what throughput counts."""
    num_filler: int
    """Tokens at the end that nobody sees."""

    @property
    def lasts(self) -> Tensor:
        """[D] int64: last token of each text."""
        return self.starts + self.lengths - 1

    def to(self, device: torch.device) -> "TextBatch":
        """The same batch on another device."""
        if self.input_ids.device == device:
            return self
        names = ("input_ids", "position_ids", "type_ids", "starts", "lengths", "owners", "wanted")
        return replace(self, **{name: getattr(self, name).to(device) for name in names})


def pack_texts(texts: Sequence[EncodedText], *, is_causal: bool = False) -> TextBatch:
    """The texts as a flat batch; with `is_causal`, tokens see only what stands before them."""
    places: dict[tuple[tuple[int, ...], int], int] = {}
    wanted = [places.setdefault((tuple(t.input_ids), t.second), len(places)) for t in texts]
    distinct = list(dict(zip(wanted, texts, strict=True)).values())
    lengths = [len(text.input_ids) for text in distinct]
    filler = -sum(lengths) % ROUND_TO
    layout = FlatLayout if is_causal else WholeLayout
    counts = torch.tensor([*lengths, filler])
    starts = counts.cumsum(0) - counts
    owners = torch.repeat_interleave(torch.arange(len(counts)), counts)
    at = torch.arange(int(counts.sum())) - starts[owners]
    seconds = torch.tensor([*(text.second or len(text.input_ids) for text in distinct), filler])
    return TextBatch(
        input_ids=torch.tensor([i for text in distinct for i in text.input_ids] + [0] * filler),
        position_ids=at,
        type_ids=(at >= seconds[owners]).long(),
        layout=layout.of([*lengths, filler]),
        starts=starts[:-1],
        lengths=counts[:-1],
        owners=owners,
        wanted=torch.tensor(wanted),
        num_tokens=sum(len(text.input_ids) for text in texts),
        num_filler=filler,
    )


def unfold_texts(batch: TextBatch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Padded rows of a batch's texts: ids, mask and types [D, L], and each token's place [T]."""
    width = int(batch.lengths.max())
    at = torch.arange(width, device=batch.lengths.device)
    mask = at < batch.lengths[:, None]
    rows = (batch.starts[:, None] + at).clamp(max=len(batch.input_ids) - 1)
    ids, types = (torch.where(mask, x[rows], 0) for x in (batch.input_ids, batch.type_ids))
    places = torch.zeros_like(batch.input_ids)
    flat = torch.arange(mask.numel(), device=mask.device).view(mask.shape)
    places[rows[mask]] = flat[mask]
    return ids, mask.long(), types, places
