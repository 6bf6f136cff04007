"""Objectives of classifiers: one label of a set, any number of labels, or a number.

The loss of an example does not depend on others. Losses are weighted by class where classes are
uneven, and divided by the sum of weights of the step, so that the mean is that of weighted rows.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from luthier.models.encoders import Encoder
from luthier.models.texts import TextBatch, pack_texts
from luthier.tokens import EncodedTexts
from luthier.training.objectives import Losses, Seen

LabelKind = Literal["single", "multi", "number"]


class ClassObjective:
    """Cross-entropy of a label, binary cross-entropy of labels, or the square error of a number.

    `weights` [C] are those of the classes; of several labels, of rows that have them against rows
    that do not. Numbers are learnt as (number - mean) / spread.
    """

    looks: Literal["never"] = "never"

    def __init__(
        self,
        kind: LabelKind,
        *,
        num_classes: int = 1,
        weights: Sequence[float] = (),
        scale: tuple[float, float] = (0.0, 1.0),
        is_causal: bool = False,
    ) -> None:
        self._kind, self._num_classes, self._is_causal = kind, num_classes, is_causal
        self._weights = torch.tensor(weights or [1.0] * num_classes)
        self._scale = scale

    @property
    def watched(self) -> tuple[str, ...]:
        """Accuracy, but of numbers."""
        return () if self._kind == "number" else ("accuracy",)

    def count(self, examples: Sequence[EncodedTexts]) -> float:
        """Rows, each by the weight of its class."""
        if self._kind == "single":
            return sum(self._weights[example.classes[0]].item() for example in examples)
        return len(examples)

    def collate(self, examples: Sequence[EncodedTexts]) -> TextBatch:
        """The texts on one axis."""
        return pack_texts([example.texts[0] for example in examples], is_causal=self._is_causal)

    def rows_of(self, example: EncodedTexts) -> int:
        """None."""
        return 0

    def look(self, model: Encoder, examples: Sequence[EncodedTexts]) -> Tensor:
        """Nothing is shared."""
        raise NotImplementedError

    def losses(
        self,
        model: Encoder,
        batch: TextBatch,
        examples: Sequence[EncodedTexts],
        seen: Seen | None,
    ) -> Losses:
        """Sum over rows."""
        return self.judge(model.logits(batch), examples)

    def judge(self, logits: Tensor, examples: Sequence[EncodedTexts]) -> Losses:
        """Sum over rows with these logits [n, C]."""
        weights = self._weights.to(logits.device)
        if self._kind == "number":
            mean, spread = self._scale
            values = [(e.value - mean) / spread for e in examples if e.value is not None]
            wanted = torch.tensor(values, device=logits.device)
            squares = (logits[:, 0] - wanted).square()
            return Losses(squares.sum(), each=squares.detach())
        if self._kind == "multi":
            targets = multi_hot(examples, self._num_classes).to(logits.device)
            losses = functional.binary_cross_entropy_with_logits(
                logits, targets, pos_weight=weights, reduction="none"
            )
            with torch.no_grad():
                right = ((logits > 0) == (targets > 0)).all(1).sum().item()
            # A mean over labels, so that rates fit however many there are.
            means = losses.mean(1)
            return Losses(means.sum(), {"accuracy": right}, means.detach())
        labels = torch.tensor([example.classes[0] for example in examples], device=logits.device)
        each = functional.cross_entropy(logits, labels, reduction="none")
        with torch.no_grad():
            right = (logits.argmax(1) == labels).sum().item()
        return Losses((each * weights[labels]).sum(), {"accuracy": right}, each.detach())


def multi_hot(examples: Sequence[EncodedTexts], num_classes: int) -> Tensor:
    """[n, C] float32: 1 where a row has the label."""
    found = torch.zeros(len(examples), num_classes)
    for row, example in enumerate(examples):
        found[row, list(example.classes)] = 1
    return found
