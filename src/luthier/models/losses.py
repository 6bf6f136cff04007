"""How surprised a model is by reference answers, without gradients.

The same flat batches and the same head as training, so that a validation loss and a training loss
mean the same thing.
"""

from collections.abc import Callable, Sequence

import torch

from luthier.models.flat import cut_in_order, pack
from luthier.models.loading import LanguageModel
from luthier.tokens import Encoded


@torch.no_grad()
def answer_losses(
    model: LanguageModel,
    encoded: Sequence[Encoded],
    *,
    budget: int,
    observe: Callable[[int], None] = lambda done: None,
) -> list[float | None]:
    """Mean loss in nats per supervised token of each example; None where none is supervised.

    `budget` bounds the tokens computed at once; an example longer than it is computed alone.
    `observe` is told how many are done.
    """
    sums = torch.zeros(len(encoded), dtype=torch.float64)
    for start, end in cut_in_order([len(e.input_ids) for e in encoded], budget):
        rows = encoded[start:end]
        batch = pack([e.input_ids for e in rows], [e.labels for e in rows])
        if len(batch.targets):
            each = model.loss(batch.to(model.device)).each.double().cpu()
            sums[start:end].index_add_(0, batch.owners, each)
        observe(end)
    return [
        float(total) / example.num_supervised if example.num_supervised else None
        for total, example in zip(sums, encoded, strict=True)
    ]
