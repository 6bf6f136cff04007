"""Objectives of embeddings: texts that belong together come near, all others of the step go away.

The others are what a text is told apart from, so losses reach over the whole step. A step that
does not fit memory is looked at first, without gradients; then each micro-batch learns against what
was seen of all (cached gradients: Gao et al. 2021), and the sum of the gradients is that of the
whole step at once.
"""

from collections.abc import Sequence
from itertools import accumulate
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from luthier.models.encoders import Encoder
from luthier.models.texts import TextBatch, pack_texts
from luthier.tokens import EncodedTexts
from luthier.training.objectives import Losses, Seen


class _Contrast:
    """What objectives over whole steps share."""

    looks: Literal["in parts"] = "in parts"
    watched: tuple[str, ...] = ()

    def __init__(self, scale: float, dimensions: Sequence[int] = (), *, is_causal: bool) -> None:
        self._scale, self._dimensions, self._is_causal = scale, dimensions, is_causal

    def count(self, examples: Sequence[EncodedTexts]) -> float:
        """Examples."""
        return len(examples)

    def collate(self, examples: Sequence[EncodedTexts]) -> TextBatch:
        """The texts of all examples, each distinct one once."""
        texts = [text for example in examples for text in example.texts]
        return pack_texts(texts, is_causal=self._is_causal)

    def rows_of(self, example: EncodedTexts) -> int:
        """A vector for each of its texts."""
        return len(example.texts)

    @torch.no_grad()
    def look(self, model: Encoder, examples: Sequence[EncodedTexts]) -> Tensor:
        """Vectors [texts, D]."""
        return model.vectors(self.collate(examples).to(model.device))

    def losses(
        self,
        model: Encoder,
        batch: TextBatch,
        examples: Sequence[EncodedTexts],
        seen: Seen | None,
    ) -> Losses:
        """Sum over these examples, with the gradient that the whole step gives their vectors."""
        own = model.vectors(batch)
        if seen is None:
            seen = Seen(examples, own, range(len(examples)))
            rows = own
        else:
            starts = [0, *accumulate(len(example.texts) for example in seen.examples)]
            at = [row for i in seen.places for row in range(starts[i], starts[i + 1])]
            rows = seen.rows.index_put((torch.tensor(at, device=own.device),), own)
        asked = torch.tensor(list(seen.places), device=own.device)
        each, right = self._of_step(rows, seen.examples)
        total = each[asked].sum()
        if torch.is_grad_enabled() and len(asked) < len(each):
            # The value is these examples' share; the gradient also counts what their texts are to
            # the others.
            rest = each.sum() - total
            total = total + (rest - rest.detach())
        watched = {} if right is None else {self.watched[0]: right[asked].sum().item()}
        return Losses(total, watched, each[asked].detach())

    def _of_step(
        self, rows: Tensor, examples: Sequence[EncodedTexts]
    ) -> tuple[Tensor, Tensor | None]:
        """Losses [n] of a step's examples, a mean over the lengths vectors are to serve at."""
        found = [self._losses(cut(rows, size), examples) for size in self._dimensions or (0,)]
        return torch.stack([losses for losses, _ in found]).mean(0), found[-1][1]

    def _losses(
        self, vectors: Tensor, examples: Sequence[EncodedTexts]
    ) -> tuple[Tensor, Tensor | None]:
        """Losses [n] of the examples by vectors of length 1, and whether each came out right."""
        raise NotImplementedError


def cut(vectors: Tensor, size: int) -> Tensor:
    """The first `size` dimensions (all for 0), at length 1 (Matryoshka; Kusupati et al. 2022)."""
    return functional.normalize(vectors[:, :size] if size else vectors, dim=-1)


class PairContrast(_Contrast):
    """Each anchor finds its own positive among all texts of the step (InfoNCE; van den Oord 2018).

    Other examples' positives and all negatives are what it is told apart from; texts equal to its
    positive or to itself are left out. With `is_symmetric`, each positive finds its anchor too.
    """

    watched = ("accuracy",)

    def __init__(
        self,
        scale: float,
        dimensions: Sequence[int] = (),
        *,
        is_symmetric: bool,
        is_causal: bool,
    ) -> None:
        super().__init__(scale, dimensions, is_causal=is_causal)
        self._is_symmetric = is_symmetric

    def _losses(self, vectors: Tensor, examples: Sequence[EncodedTexts]) -> tuple[Tensor, Tensor]:
        starts = [0, *accumulate(len(example.texts) for example in examples)][:-1]
        is_anchor = torch.zeros(len(vectors), dtype=torch.bool)
        is_anchor[starts] = True
        numbers = text_numbers(examples).to(vectors.device)
        anchors, found = vectors[is_anchor], vectors[~is_anchor]
        asked, offered = numbers[is_anchor], numbers[~is_anchor]
        # The positive is the first text after the anchor; anchors before it are not among them.
        targets = torch.tensor([start - i for i, start in enumerate(starts)], device=vectors.device)
        own = offered[targets]
        losses, right = self._find(anchors, found, targets, own, (asked, offered))
        if self._is_symmetric:
            back = torch.arange(len(starts), device=vectors.device)
            other, _ = self._find(found[targets], anchors, back, asked, (own, asked))
            losses = (losses + other) / 2
        return losses, right

    def _find(
        self,
        asking: Tensor,
        offered: Tensor,
        targets: Tensor,
        own: Tensor,
        numbers: tuple[Tensor, Tensor],
    ) -> tuple[Tensor, Tensor]:
        """Losses [n] of finding targets [n] among what is offered, and whether it was nearest."""
        scores = self._scale * asking @ offered.t()
        same = (numbers[1] == own[:, None]) | (numbers[1] == numbers[0][:, None])
        same[torch.arange(len(targets)), targets] = False
        scores = scores.masked_fill(same, -torch.inf)
        losses = functional.cross_entropy(scores, targets, reduction="none")
        return losses, scores.argmax(1) == targets


class LabelContrast(_Contrast):
    """Texts of one label come near each other (supervised contrast; Khosla et al. 2020, eq. 2).

    A text of a label that no other text of the step has teaches only what it is told apart from.
    """

    def _losses(self, vectors: Tensor, examples: Sequence[EncodedTexts]) -> tuple[Tensor, None]:
        labels = torch.tensor([example.classes[0] for example in examples], device=vectors.device)
        numbers = text_numbers(examples).to(vectors.device)
        same_text = numbers[:, None] == numbers
        scores = (self._scale * vectors @ vectors.t()).masked_fill(same_text, -torch.inf)
        is_kin = (labels[:, None] == labels) & ~same_text
        has_others = (~same_text).any(1)
        # A step of one text alone is nothing to learn from; its row would be all -inf.
        log_shares = scores.masked_fill(~has_others[:, None], 0.0).log_softmax(1)
        kin = torch.where(is_kin, log_shares, 0.0).sum(1)
        return -kin / is_kin.sum(1).clamp(min=1), None


class ScoreContrast(_Contrast):
    """Pairs come out in the order of their scores (CoSENT; Su 2022).

    log(1 + sum of exp(scale x (cosine of the less alike pair - of the more alike one))), over all
    two pairs of the step; each pair carries an equal share of it.
    """

    def _losses(self, vectors: Tensor, examples: Sequence[EncodedTexts]) -> tuple[Tensor, None]:
        first, second = vectors.unflatten(0, (-1, 2)).unbind(1)
        alike = self._scale * (first * second).sum(1)
        values = torch.tensor([example.value for example in examples], device=vectors.device)
        is_less = values[:, None] < values
        differences = (alike[:, None] - alike)[is_less]
        loss = torch.cat((differences.new_zeros(1), differences)).logsumexp(0)
        return loss.expand(len(examples)), None


def text_numbers(examples: Sequence[EncodedTexts]) -> Tensor:
    """[texts] int64: equal for texts of equal ids."""
    known: dict[tuple[int, ...], int] = {}
    return torch.tensor(
        [
            known.setdefault(tuple(text.input_ids), len(known))
            for example in examples
            for text in example.texts
        ]
    )
