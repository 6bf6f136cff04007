"""Embeddings of which only the rows that occur learn: the rest could not move anyway.

A row that no training text holds has no gradient, so AdamW without weight decay keeps it as it is,
at the price of a gradient, two moments and an update for all of a vocabulary. Of an encoder, most
weights are such rows. Here the rows that occur are parameters of their own; the result is the same.
"""

from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

WORTH = 0.5
"""Share of the vocabulary up to which a table of its own is worth its bookkeeping."""


class NarrowEmbedding(nn.Module):
    """An embedding whose rows of known ids learn; others are looked up in the frozen whole."""

    place: Tensor

    def __init__(self, whole: nn.Embedding, ids: Tensor) -> None:
        super().__init__()
        self.whole = whole.requires_grad_(False)
        self.rows = nn.Parameter(whole.weight.detach()[ids].clone())
        place = torch.full((whole.num_embeddings,), -1, device=ids.device)
        place[ids] = torch.arange(len(ids), device=ids.device)
        self.register_buffer("place", place, persistent=False)
        self.register_buffer("ids", ids, persistent=False)

    def forward(self, input_ids: Tensor) -> Tensor:
        """Rows [..., H] of ids."""
        place = self.place[input_ids]
        known = place >= 0
        found = functional.embedding(place.clamp(min=0), self.rows)
        if bool(known.all()):
            return found
        return torch.where(known[..., None], found, cast(Tensor, self.whole(input_ids)))

    @torch.no_grad()
    def widened(self) -> nn.Embedding:
        """The whole embedding, with the rows that learnt in their places."""
        self.whole.weight[cast(Tensor, self.ids)] = self.rows.to(self.whole.weight.dtype)
        return self.whole


def narrow_embedding(model: PreTrainedModel, used: Iterable[int]) -> None:
    """Let only the rows of these ids learn of a model's input embeddings, where it is worth it."""
    whole = model.get_input_embeddings()
    ids = sorted({0, *used})  # what nobody sees is filled with id 0
    if type(whole) is nn.Embedding and len(ids) <= WORTH * whole.num_embeddings:
        model.set_input_embeddings(
            NarrowEmbedding(whole, torch.tensor(ids, device=whole.weight.device))
        )


def widen_embedding(model: PreTrainedModel) -> None:
    """Give the model its whole embeddings back, if they were narrowed."""
    narrow = model.get_input_embeddings()
    if isinstance(narrow, NarrowEmbedding):
        model.set_input_embeddings(narrow.widened())
