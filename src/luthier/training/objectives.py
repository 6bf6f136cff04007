"""What is minimised: a method is a small object, not a trainer.

An objective turns encoded examples into a batch and a batch into a sum of losses with the count to
divide by. The loop knows nothing else about it. Losses are sums, so that accumulation over
micro-batches is exact whatever their sizes; the loop divides by the count of the whole step.

Where the loss of an example depends on others of its step (KTO's baseline, other texts to be told
apart from), the objective first looks at all of them without gradients, micro-batch by micro-batch;
what it saw comes with each micro-batch's turn to learn (the cached gradients of Gao et al. 2021).
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from luthier.models.flat import FlatBatch, cut_in_order, pack
from luthier.models.learner import Learner
from luthier.models.loading import LanguageModel
from luthier.tokens import Encoded, EncodedExample
from luthier.training.ranks import Ranks

SEEN_TOGETHER = 256
"""Held-out examples that are told apart from each other."""


@dataclass(frozen=True, slots=True)
class Losses:
    """The loss of a batch as a sum, and sums of what else is worth watching."""

    total: Tensor
    """Differentiable float32 scalar."""
    watched: dict[str, float] = field(default_factory=dict)
    """Name -> sum over the examples of the batch."""
    each: Tensor | None = None
    """[examples] detached: the mean loss of each, as if it were alone, where that is known."""


class Batch(Protocol):
    """Tokens of several sequences on one axis."""

    @property
    def input_ids(self) -> Tensor:
        """[T] int64."""
        ...

    @property
    def num_tokens(self) -> int:
        """Tokens of the sequences as they came: what throughput counts."""
        ...

    @property
    def num_filler(self) -> int:
        """Tokens that nobody sees."""
        ...

    def to(self, device: torch.device) -> Any:
        """The same batch on another device."""
        ...


@dataclass(frozen=True, slots=True)
class Seen:
    """What an objective saw of a step's examples before it learns from some of them."""

    examples: Sequence[Any]
    """All of the step's, on all ranks, in order."""
    rows: Tensor
    """[sum of `rows_of`, K] float32: what `look` said of them, in their order."""
    places: Sequence[int]
    """Which of the examples the losses are asked of."""


class Objective(Protocol):
    """A training method for one kind of model."""

    @property
    def looks(self) -> Literal["never", "in parts", "always"]:
        """When it must look at a step before it learns: where that is computed in parts, say."""
        ...

    @property
    def watched(self) -> tuple[str, ...]:
        """Names of what is watched besides the loss."""
        ...

    def count(self, examples: Sequence[Any]) -> float:
        """Terms the step's loss is averaged over."""
        ...

    def collate(self, examples: Sequence[Any]) -> Any:
        """The examples as one flat batch."""
        ...

    def rows_of(self, example: Any) -> int:
        """Rows that `look` gives for an example."""
        ...

    def look(self, model: Any, examples: Sequence[Any]) -> Tensor:
        """[rows, K] float32: what the losses of others need to know of these examples."""
        ...

    def losses(self, model: Any, batch: Any, examples: Sequence[Any], seen: Seen | None) -> Losses:
        """Losses of a batch of these examples; `seen` is there where it looked."""
        ...


class SupervisedObjective:
    """Negative log-likelihood of the supervised tokens: fine-tuning, and pre-training likewise.

    `share_prefixes` computes common beginnings once; it must be off when dropout is on, since a
    shared token would be dropped for all its sequences alike.
    """

    looks: Literal["never"] = "never"
    watched = ()

    def __init__(self, *, share_prefixes: bool) -> None:
        self._share_prefixes = share_prefixes

    def count(self, examples: Sequence[Encoded]) -> float:
        """Supervised tokens."""
        return sum(example.num_supervised for example in examples)

    def collate(self, examples: Sequence[Encoded]) -> FlatBatch:
        """The sequences on one axis."""
        return pack_examples(examples, share=self._share_prefixes)

    def rows_of(self, example: Encoded) -> int:
        """None."""
        return 0

    def look(self, model: LanguageModel, examples: Sequence[Encoded]) -> Tensor:
        """Nothing is shared."""
        raise NotImplementedError

    def losses(
        self,
        model: LanguageModel,
        batch: FlatBatch,
        examples: Sequence[Encoded],
        seen: Seen | None,
    ) -> Losses:
        """Sum over supervised tokens."""
        total, sums = model.summed_loss(batch)
        if sums is None:
            return Losses(total)
        counts = torch.tensor([example.num_supervised for example in examples], device=sums.device)
        return Losses(total, each=sums / counts.clamp(min=1))


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
    model: Learner,
    objective: Objective,
    examples: Sequence[Any],
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
    rows = None
    looks = objective.looks
    if looks == "always" or (looks == "in parts" and (ranks.count > 1 or len(groups) > 1)):
        own = look_at(model, objective, examples, groups)
        rows = ranks.sum_rows(own, sum(map(objective.rows_of, examples))).to(model.device)
    total, watched = 0.0, dict.fromkeys(objective.watched, 0.0)
    for group, counts in groups:
        members = [examples[i] for i in group]
        batch = objective.collate(members).to(model.device)
        seen = None if rows is None else Seen(examples, rows, group)
        losses = objective.losses(model, batch, members, seen)
        total += counts * losses.total.item()
        for name, value in losses.watched.items():
            watched[name] += counts * value
    total, *sums = ranks.sum(total, *watched.values())
    means = {name: value / len(examples) for name, value in zip(watched, sums, strict=True)}
    return Measured(total / objective.count(examples), means)


def measure_parted(
    model: Learner,
    objective: Objective,
    examples: Sequence[Any],
    budget: int,
    ranks: Ranks | None = None,
) -> Measured:
    """As `measure`, of `SEEN_TOGETHER` examples at once, in an order that mixes neighbours.

    For objectives that look at all examples together, whose memory grows with their square.
    """
    order = list(range(len(examples)))
    if len(order) > SEEN_TOGETHER:
        random.Random(0).shuffle(order)  # noqa: S311 - an order, not a secret
    parts = [order[i : i + SEEN_TOGETHER] for i in range(0, len(order), SEEN_TOGETHER)]
    found = [measure(model, objective, [examples[i] for i in p], budget, ranks) for p in parts]
    shares = [len(part) / len(order) for part in parts]
    return Measured(
        sum(share * each.loss for share, each in zip(shares, found, strict=True)),
        {
            name: sum(s * each.watched[name] for s, each in zip(shares, found, strict=True))
            for name in objective.watched
        },
    )


@torch.no_grad()
def look_at(
    model: Learner,
    objective: Objective,
    examples: Sequence[Any],
    groups: Sequence[tuple[list[int], bool]],
) -> Tensor | None:
    """What the objective sees of the examples of these groups; zeros in the rows of others.

    None where there is no group.
    """
    counts = [objective.rows_of(example) for example in examples]
    starts = [0, *accumulate(counts)]
    rows: Tensor | None = None
    for group, is_wanted in groups:
        found = objective.look(model, [examples[i] for i in group]).cpu()
        if rows is None:
            rows = torch.zeros(starts[-1], found.shape[1])
        if is_wanted:
            at = [row for i in group for row in range(starts[i], starts[i + 1])]
            rows[at] = found
    return None if rows is None else rows.to(model.device)


def in_step(
    ranks: Ranks, model: Learner, groups: list[list[int]], filler: list[int]
) -> list[tuple[list[int], bool]]:
    """The groups a rank computes, and whether each counts.

    A model spread over processes computes only when all of them do: a rank with fewer groups than
    another computes the filler, which counts for nothing.
    """
    missing = 0 if model.root is None else ranks.most(len(groups)) - len(groups)
    return [*((group, True) for group in groups), *([(filler, False)] * missing)]
