"""How far tuning has moved a model: the divergence from the model at the start.

Exact over the vocabulary at every answer token, not estimated from samples: the adapter is switched
off for the second look, so no second model is loaded.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from luthier.models.flat import cut_in_order, pack
from luthier.models.head import rows_of_chunk
from luthier.models.loading import LanguageModel
from luthier.tokens import Encoded


@torch.no_grad()
def kl_to_start(model: LanguageModel, encoded: Sequence[Encoded], *, budget: int) -> float:
    """Mean KL(model || model without its adapter) in nats per supervised token.

    `budget` bounds the tokens computed at once; a sequence longer than it is computed alone. At
    least one token is supervised.
    """
    total, count = 0.0, 0
    for start, end in cut_in_order([e.num_tokens for e in encoded], budget):
        rows = encoded[start:end]
        batch = pack([e.input_ids for e in rows], [e.labels for e in rows]).to(model.device)
        if not len(batch.targets):
            continue
        now = model.predicting_states(batch)
        with model.without_adapter():
            before = model.predicting_states(batch)
        total += _divergence(model, now, before)
        count += len(batch.targets)
    return total / count


def _divergence(model: LanguageModel, now: Tensor, before: Tensor) -> float:
    """Sum over positions of the divergence of two hidden states' distributions, in chunks."""
    total = 0.0
    step = rows_of_chunk(len(model.head.weight), 4)
    for a, b in zip(now.split(step), before.split(step), strict=True):
        log_now, log_before = (model.logits(h).log_softmax(dim=-1) for h in (a, b))
        total += (log_now.exp() * (log_now - log_before)).sum().item()
    return total
