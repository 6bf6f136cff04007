"""What is minimised: a method is a small object, not a trainer.

An objective turns encoded examples into a batch and a batch into a sum of losses with the count to
divide by. The loop knows nothing else about it. Losses are sums, so that accumulation over
micro-batches is exact whatever their sizes; the loop divides by the count of the whole step.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from luthier.models.flat import FlatBatch, cut_in_order, pack
from luthier.models.loading import LanguageModel
from luthier.tokens import Encoded, EncodedExample
from luthier.training.ranks import Ranks


@dataclass(frozen=True, slots=True)
class Losses:
    """The loss of a batch as a sum, and sums of what else is worth watching."""

    total: Tensor
    """Differentiable float32 scalar."""
    watched: dict[str, float] = field(default_factory=dict)
    """Name -> sum over the examples of the batch."""


class Objective(Protocol):
    """A training method."""

    @property
    def has_baseline(self) -> bool:
        """Whether the losses of a step share a number found before them."""
        ...

    @property
    def watched(self) -> tuple[str, ...]:
        """Names of what is watched besides the loss."""
        ...

    def count(self, examples: Sequence[Any]) -> float:
        """Terms the step's loss is averaged over."""
        ...

    def collate(self, examples: Sequence[Any]) -> FlatBatch:
        """The examples as one flat batch."""
        ...

    def baseline(self, model: LanguageModel, examples: Sequence[Any]) -> float:
        """Sum over the examples of what the step's baseline is the mean of; 0 without one."""
        ...

    def losses(
        self, model: LanguageModel, batch: FlatBatch, examples: Sequence[Any], baseline: float
    ) -> Losses:
        """Losses of a batch of these examples, given the step's baseline."""
        ...


class SupervisedObjective:
    """Negative log-likelihood of the supervised tokens: fine-tuning, and pre-training likewise.

    `share_prefixes` computes common beginnings once; it must be off when dropout is on, since a
    shared token would be dropped for all its sequences alike.
    """

    has_baseline = False
    watched = ()

    def __init__(self, *, share_prefixes: bool) -> None:
        self._share_prefixes = share_prefixes

    def count(self, examples: Sequence[Encoded]) -> float:
        """Supervised tokens."""
        return sum(example.num_supervised for example in examples)

    def collate(self, examples: Sequence[Encoded]) -> FlatBatch:
        """The sequences on one axis."""
        return pack_examples(examples, share=self._share_prefixes)

    def baseline(self, model: LanguageModel, examples: Sequence[Encoded]) -> float:
        """Nothing is shared."""
        return 0.0

    def losses(
        self, model: LanguageModel, batch: FlatBatch, examples: Sequence[Encoded], baseline: float
    ) -> Losses:
        """Sum over supervised tokens."""
        return Losses(model.total_loss(batch))


def pack_examples(examples: Sequence[EncodedExample], *, share: bool) -> FlatBatch:
    """All sequences of the examples on one axis, in order."""
    return pack_sequences([s for example in examples for s in example.sequences], share=share)


def pack_sequences(sequences: Sequence[Encoded], *, share: bool) -> FlatBatch:
    """Sequences on one axis."""
    return pack(
        [sequence.input_ids for sequence in sequences],
        [sequence.labels for sequence in sequences],
        share=share,
    )


@dataclass(frozen=True, slots=True)
class Measured:
    """An objective's mean over held-out examples."""

    loss: float
    watched: dict[str, float]


@torch.no_grad()
def measure(
    model: LanguageModel,
    objective: Objective,
    examples: Sequence[EncodedExample],
    budget: int,
    ranks: Ranks | None = None,
) -> Measured:
    """The objective over examples as in a step, without learning from them, each rank a share.

    `budget` bounds the tokens computed at once; an example longer than it is computed alone.
    """
    ranks = ranks or Ranks()
    lengths = [example.num_tokens for example in examples]
    # In order on one rank: neighbours in a file often begin alike, and are computed once.
    mine = sorted(ranks.divide(range(len(examples)), lengths)[ranks.rank])
    cut = cut_in_order([lengths[i] for i in mine], budget)
    groups = in_step(ranks, model, [mine[start:end] for start, end in cut], [0])
    baseline = 0.0
    if objective.has_baseline:
        for group, counts in groups:
            baseline += counts * objective.baseline(model, [examples[i] for i in group])
        baseline = ranks.sum(baseline)[0] / len(examples)
    total, watched = 0.0, dict.fromkeys(objective.watched, 0.0)
    for group, counts in groups:
        members = [examples[i] for i in group]
        batch = objective.collate(members).to(model.device)
        losses = objective.losses(model, batch, members, baseline)
        total += counts * losses.total.item()
        for name, value in losses.watched.items():
            watched[name] += counts * value
    total, *sums = ranks.sum(total, *watched.values())
    means = {name: value / len(examples) for name, value in zip(watched, sums, strict=True)}
    return Measured(total / objective.count(examples), means)


def in_step(
    ranks: Ranks, model: LanguageModel, groups: list[list[int]], filler: list[int]
) -> list[tuple[list[int], bool]]:
    """The groups a rank computes, and whether each counts.

    A model spread over processes computes only when all of them do: a rank with fewer groups than
    another computes the filler, which counts for nothing.
    """
    missing = 0 if model.root is None else ranks.most(len(groups)) - len(groups)
    return [*((group, True) for group in groups), *([(filler, False)] * missing)]
