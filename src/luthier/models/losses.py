"""How surprised a model is by reference answers, without gradients.

The same flat batches and the same head as training, so that a validation loss and a training loss
mean the same thing.
"""

from collections.abc import Callable, Iterator, Sequence
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

    The choices of a question begin alike, and that beginning is computed once, or as often as they
    do not fit together: `budget` bounds the tokens computed at once, and only a longer choice is
    more. `observe` is told how many questions are done.
    """
    shares = not model.padded_because  # padded batches copy the beginning
    parts = [(i, part) for i, own in enumerate(choices) for part in _parts(own, budget, shares)]
    found: list[list[Likelihood]] = [[] for _ in choices]
    for start, end in cut_in_order([_cost(part, shares) for _, part in parts], budget):
        flat = iter(_likelihoods(model, [each for _, part in parts[start:end] for each in part]))
        for i, part in parts[start:end]:
            found[i] += [next(flat) for _ in part]
        observe(parts[end - 1][0] + 1)
    return found


def _parts(choices: Sequence[Encoded], budget: int, shares: bool) -> Iterator[Sequence[Encoded]]:
    """The choices of a question in portions that are computed together."""
    start = 0
    for end in range(1, len(choices) + 1):
        if end > start + 1 and _cost(choices[start:end], shares) > budget:
            yield choices[start : end - 1]
            start = end - 1
    if choices:
        yield choices[start:]


def _cost(choices: Sequence[Encoded], shares: bool) -> int:
    """Tokens computed for choices: what comes before the answers, and each of them."""
    if not shares:
        return len(choices) * max(each.num_tokens for each in choices)
    before = max(each.num_tokens - each.num_supervised for each in choices)
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
