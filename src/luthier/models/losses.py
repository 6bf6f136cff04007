"""How surprised a model is by reference answers, without gradients.

The same flat batches and the same head as training, so that a validation loss and a training loss
mean the same thing.
"""

from collections.abc import Sequence

import torch

from luthier.models.flat import pack
from luthier.models.loading import LanguageModel
from luthier.tokens import Encoded


@torch.no_grad()
def answer_losses(
    model: LanguageModel, encoded: Sequence[Encoded], *, budget: int
) -> list[float | None]:
    """Mean loss in nats per supervised token of each example; None where none is supervised.

    `budget` bounds the tokens computed at once; an example longer than it is computed alone.
    """
    sums = torch.zeros(len(encoded), dtype=torch.float64)
    for rows in _cut(encoded, budget):
        batch = pack([encoded[i].input_ids for i in rows], [encoded[i].labels for i in rows])
        each = model.loss(batch.to(model.device)).each.double().cpu()
        sums.index_add_(0, torch.tensor(rows)[batch.owners], each)
    return [
        float(total) / example.num_supervised if example.num_supervised else None
        for total, example in zip(sums, encoded, strict=True)
    ]


def mean_loss(model: LanguageModel, encoded: Sequence[Encoded], *, budget: int) -> float:
    """Mean loss in nats over all supervised tokens of the examples, each token counting once."""
    losses = answer_losses(model, encoded, budget=budget)
    total = sum(
        loss * example.num_supervised
        for loss, example in zip(losses, encoded, strict=True)
        if loss is not None
    )
    return total / sum(example.num_supervised for example in encoded)


def _cut(encoded: Sequence[Encoded], budget: int) -> list[list[int]]:
    """Numbers of the examples in groups of at most `budget` tokens, in order."""
    groups: list[list[int]] = []
    filled = budget + 1
    for i, example in enumerate(encoded):
        if filled + len(example.input_ids) > budget:
            groups.append([])
            filled = 0
        groups[-1].append(i)
        filled += len(example.input_ids)
    return groups
