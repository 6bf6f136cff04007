"""How far tuning has moved a model: the divergence from the model at the start.

Exact over the vocabulary at every answer token, not estimated from samples. Where an adapter
learnt, it is switched off for the second look, so that no second model is needed.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from luthier.models.flat import cut_in_order, pack
from luthier.models.head import rows_of_chunk
from luthier.models.loading import LanguageModel
from luthier.tokens import Encoded


@torch.no_grad()
def kl_to_start(
    model: LanguageModel,
    encoded: Sequence[Encoded],
    *,
    budget: int,
    start: LanguageModel | None = None,
) -> float:
    """Mean KL(model || start) in nats per supervised token.

    Without a `start` it is the model without its adapter. `budget` bounds the tokens computed at
    once; a sequence longer than it is computed alone. At least one token is supervised.
    """
    total, count = 0.0, 0
    for first, end in cut_in_order([e.num_tokens for e in encoded], budget):
        rows = encoded[first:end]
        batch = pack([e.input_ids for e in rows], [e.labels for e in rows]).to(model.device)
        if not len(batch.targets):
            continue
        now = model.predicting_states(batch)
        if start is None:
            with model.without_adapter():
                before = model.predicting_states(batch)
        else:
            before = start.predicting_states(batch)
        total += _divergence((model, now), (start or model, before))
        count += len(batch.targets)
    return total / count


def _divergence(now: tuple[LanguageModel, Tensor], before: tuple[LanguageModel, Tensor]) -> float:
    """Sum over positions of the divergence of two hidden states' distributions, in chunks."""
    total = 0.0
    (model, states), (start, earlier) = now, before
    step = rows_of_chunk(len(model.head.weight), 4)
    for a, b in zip(states.split(step), earlier.split(step), strict=True):
        log_now = model.logits(a).log_softmax(dim=-1)
        log_before = start.logits(b).log_softmax(dim=-1)
        total += (log_now.exp() * (log_now - log_before)).sum().item()
    return total
