"""What is minimised: a method is a small object, not a trainer.

An objective turns encoded examples into a batch and a batch into a sum of losses with the count to
divide by. The loop knows nothing else about it. Losses are sums, so that accumulation over
micro-batches is exact whatever their sizes; the loop divides by the count of the whole step.
"""

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from luthier.models.flat import FlatBatch, pack
from luthier.models.loading import LanguageModel
from luthier.tokens import Encoded


class Objective(Protocol):
    """A training method."""

    def count(self, examples: Sequence[Encoded]) -> int:
        """Terms the step's loss is averaged over."""
        ...

    def collate(self, examples: Sequence[Encoded]) -> FlatBatch:
        """The examples as one flat batch."""
        ...

    def loss(self, model: LanguageModel, batch: FlatBatch) -> Tensor:
        """Sum of the losses of a batch, as a differentiable float32 scalar."""
        ...


class SupervisedObjective:
    """Supervised fine-tuning: negative log-likelihood of the supervised tokens.

    `share_prefixes` computes common beginnings once; it must be off when dropout is on, since a
    shared token would be dropped for all its sequences alike.
    """

    def __init__(self, *, share_prefixes: bool) -> None:
        self._share_prefixes = share_prefixes

    def count(self, examples: Sequence[Encoded]) -> int:
        return sum(example.num_supervised for example in examples)

    def collate(self, examples: Sequence[Encoded]) -> FlatBatch:
        return pack(
            [example.input_ids for example in examples],
            [example.labels for example in examples],
            share=self._share_prefixes,
        )

    def loss(self, model: LanguageModel, batch: FlatBatch) -> Tensor:
        return model.loss(batch).total
