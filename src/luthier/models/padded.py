"""A flat batch as padded rows: the plain form, for architectures that cannot run flat.

Each sequence of the forest becomes a row with a copy of all it continues. Hidden states of shared
tokens are taken from one of their copies, which are equal.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from luthier.models.flat import FlatBatch


class Padded(NamedTuple):
    """Rows of a padded batch [n, L], and where each flat token is found in them."""

    input_ids: Tensor
    mask: Tensor
    """1 for tokens, 0 for padding."""
    places: Tensor
    """[T]: index into the flattened rows of each flat token's copy."""


def unfold(batch: FlatBatch) -> Padded:
    """The padded rows of a flat batch."""
    ends = torch.tensor([length for length, _ in batch.segments]).cumsum(0).tolist()
    spans = [
        range(end - length, end) for end, (length, _) in zip(ends, batch.segments, strict=True)
    ]
    continued = {parent for _, parent in batch.segments}
    leaves = [i for i, (length, _) in enumerate(batch.segments) if i not in continued and length]
    rows = [_path(i, spans, batch) for i in leaves]
    width = max(len(row) for row in rows)
    device = batch.input_ids.device
    tokens = torch.tensor([row + [0] * (width - len(row)) for row in rows], device=device)
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows], device=device)
    places = torch.zeros(len(batch.input_ids), dtype=torch.int64, device=device)
    is_token = mask.flatten().bool()
    places[tokens.flatten()[is_token]] = torch.arange(len(is_token), device=device)[is_token]
    return Padded(batch.input_ids[tokens], mask, places)


def _path(segment: int, spans: list[range], batch: FlatBatch) -> list[int]:
    """Flat tokens of a segment and all it continues, in order."""
    tokens: list[int] = []
    while segment >= 0:
        tokens = [*spans[segment], *tokens]
        segment = batch.segments[segment][1]
    return tokens
