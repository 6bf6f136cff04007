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
    model: LanguageModel, encoded: Sequence[Encoded], *, budget: int
) -> list[float | None]:
    """Mean loss in nats per supervised token of each example; None where none is supervised.

    `budget` bounds the tokens computed at once; an example longer than it is computed alone.
    """
    sums = torch.zeros(len(encoded), dtype=torch.float64)
    for start, end in cut_in_order([len(e.input_ids) for e in encoded], budget):
        rows = encoded[start:end]
        batch = pack([e.input_ids for e in rows], [e.labels for e in rows])
        if len(batch.targets):
            each = model.loss(batch.to(model.device)).each.double().cpu()
            sums[start:end].index_add_(0, batch.owners, each)
    return [
        float(total) / example.num_supervised if example.num_supervised else None
        for total, example in zip(sums, encoded, strict=True)
    ]


def choice_losses(
    model: LanguageModel,
    choices: Sequence[Sequence[Encoded]],
    *,
    budget: int,
    observe: Callable[[int], None] = lambda done: None,
) -> list[list[float]]:
    """Loss in nats of each choice as a whole answer, question by question.

    The choices of a question begin alike, and that beginning is computed once. `budget` bounds the
    tokens computed at once, but a question stays whole. `observe` is told how many are done.
    """
    costs = [_cost(own) for own in choices]
    found: list[list[float]] = []
    for start, end in cut_in_order(costs, budget):
        flat = [each for own in choices[start:end] for each in own]
        losses = answer_losses(model, flat, budget=sum(each.num_tokens for each in flat))
        sums = iter(
            [(loss or 0.0) * each.num_supervised for loss, each in zip(losses, flat, strict=True)]
        )
        found += [[next(sums) for _ in own] for own in choices[start:end]]
        observe(end)
    return found


def _cost(choices: Sequence[Encoded]) -> int:
    """Tokens computed for a question: what comes before the answers, and each of them."""
    before = max((each.num_tokens - each.num_supervised for each in choices), default=0)
    return before + sum(each.num_supervised for each in choices)
