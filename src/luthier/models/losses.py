"""How surprised a model is by reference answers, without gradients.

The same flat batches and the same head as training, so that a validation loss and a training loss
mean the same thing.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from luthier.models.flat import cut_in_order, pack
from luthier.models.head import rows_of_chunk
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


@dataclass(frozen=True, slots=True)
class Likelihood:
    """How likely a model finds a whole answer."""

    log: float
    """In nats."""
    is_greedy: bool
    """Whether each token of it is the likeliest after those before."""


@torch.no_grad()
def choice_likelihoods(
    model: LanguageModel,
    choices: Sequence[Sequence[Encoded]],
    *,
    budget: int,
    observe: Callable[[int], None] = lambda done: None,
) -> list[list[Likelihood]]:
    """How likely each choice is as a whole answer, question by question.

    The choices of a question begin alike, and that beginning is computed once. `budget` bounds the
    tokens computed at once, but a question stays whole. `observe` is told how many are done.
    """
    found: list[list[Likelihood]] = []
    for start, end in cut_in_order([_cost(own) for own in choices], budget):
        flat = iter(_likelihoods(model, [each for own in choices[start:end] for each in own]))
        found += [[next(flat) for _ in own] for own in choices[start:end]]
        observe(end)
    return found


def _cost(choices: Sequence[Encoded]) -> int:
    """Tokens computed for a question: what comes before the answers, and each of them."""
    before = max((each.num_tokens - each.num_supervised for each in choices), default=0)
    return before + sum(each.num_supervised for each in choices)


def _likelihoods(model: LanguageModel, encoded: Sequence[Encoded]) -> list[Likelihood]:
    logs = torch.zeros(len(encoded), dtype=torch.float64)
    misses = torch.zeros(len(encoded), dtype=torch.int64)
    batch = pack([e.input_ids for e in encoded], [e.labels for e in encoded])
    if len(batch.targets):
        on_device = batch.to(model.device)
        states = model.predicting_states(on_device)
        step = rows_of_chunk(len(model.head.weight), 4)
        parts = zip(states.split(step), on_device.targets.split(step),
                    batch.owners.split(step), strict=True)  # fmt: skip
        for hidden, targets, owners in parts:
            scores = model.logits(hidden).log_softmax(dim=-1)
            own = scores.gather(1, targets[:, None])[:, 0]
            logs.index_add_(0, owners, own.double().cpu())
            misses.index_add_(0, owners, (own < scores.amax(dim=-1)).long().cpu())
    return [
        Likelihood(log, miss == 0) for log, miss in zip(logs.tolist(), misses.tolist(), strict=True)
    ]
