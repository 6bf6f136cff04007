"""The gradient of one optimizer step: its examples in micro-batches that fit memory.

Losses are sums over the step, divided by the count of the whole step on all ranks, so neither the
micro-batches nor the number of ranks change the result. When memory runs out, the micro-batch is
halved and the step begun anew.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.profiler import record_function

from luthier.errors import TrainingError
from luthier.models.learner import Learner
from luthier.models.trained import TrainedWeights
from luthier.training.batches import cut_by_tokens
from luthier.training.memory import (
    Activations,
    can_recompute,
    free_memory,
    is_out_of_memory,
    kept_activations,
    recompute_activations,
)
from luthier.training.objectives import Objective, Seen, in_step, look_at
from luthier.training.ranks import Ranks

T = TypeVar("T")


@dataclass
class Tally:
    """What a step computed, on this rank, then on all."""

    loss: float = 0.0
    """Sum of losses over the count of the step."""
    num_tokens: int = 0
    num_computed: int = 0
    """Tokens computed, each shared beginning once, with filler."""
    num_filler: int = 0
    watched: dict[str, float] = field(default_factory=dict)
    each: list[float] = field(default_factory=list)
    """Loss of each of the step's examples in order, not a number where it is not known."""


@dataclass(frozen=True, slots=True)
class Squeezed:
    """Memory ran out; from here on training needs less of it."""

    micro_batch_tokens: int
    activations: Activations


class Gradients:
    """Computes the gradients of steps, within memory."""

    def __init__(
        self,
        model: Learner,
        objective: Objective,
        examples: Sequence[Any],
        trained: TrainedWeights,
        ranks: Ranks,
    ) -> None:
        self.model, self.objective, self.examples = model, objective, examples
        self.trained, self.ranks = trained, ranks
        self.lengths = [example.num_tokens for example in examples]
        self.budget = max(self.lengths, default=1)
        self.activations: Activations = "keep"
        self._ahead: tuple[tuple[int, ...], Any] | None = None

    def use(self, budget: int, activations: Activations) -> None:
        """Compute this many tokens at once, and treat activations like this."""
        self.budget = budget
        if activations == "recompute" and self.activations != "recompute":
            recompute_activations(self.model)
        self.activations = activations

    def prepare_step(self, chosen: Sequence[int]) -> None:
        """Make the first batch of the next step ready, while a GPU still works on this one."""
        step = sorted(chosen)
        mine = self._mine(step)
        if mine:
            self._prepare([step[p] for p in cut_by_tokens(mine, self._of(step), self.budget)[0]])

    def of_step(self, chosen: Sequence[int], seed: int) -> tuple[Tally, list[Squeezed]]:
        """Gradients of a step's examples, summed over all ranks, and what memory allowed.

        Random numbers (dropout) follow from the seed and the rank.
        """
        squeezed: list[Squeezed] = []
        drawn = hash((seed, self.ranks.rank))
        # From here on examples go by their position in the step, which may hold one of them twice.
        step = sorted(chosen)
        count = self.objective.count([self.examples[i] for i in step])
        rows: Tensor | None = None
        if self.objective.looks != "never" and self.ranks.count > 1:
            # Exchanged outside of what may be begun anew, which other ranks do not take part in.
            own = self._fitting(lambda: self._look(step), drawn, squeezed)
            rows = self._exchanged(own, step)

        def compute() -> Tally:
            return self._accumulate(step, count, self._look(step) if rows is None else rows)

        tally = self._fitting(compute, drawn, squeezed)
        self.ranks.sum_gradients(self.trained.masters.values())
        return self._summed(tally), squeezed

    def _summed(self, tally: Tally) -> Tally:
        """What all ranks computed together."""
        loss, *numbers = self.ranks.sum(
            tally.loss,
            tally.num_tokens,
            tally.num_computed,
            tally.num_filler,
            *tally.watched.values(),
            *tally.each,
        )
        tokens, computed, filler, *rest = numbers
        means = dict(zip(tally.watched, rest, strict=False))
        each = rest[len(means) :]
        return Tally(loss, int(tokens), int(computed), int(filler), means, each)

    def _fitting(self, compute: Callable[[], T], seed: int, squeezed: list[Squeezed]) -> T:
        """What is computed, begun anew with less at once for as long as memory runs out."""
        while True:
            torch.manual_seed(seed)
            try:
                return compute()
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
            # Outside of the handler, whose error would keep the tensors of its frames alive.
            self._forget()
            squeezed.append(self._squeeze())

    def _of(self, step: Sequence[int]) -> list[int]:
        """Tokens of each of the step's examples."""
        return [self.lengths[i] for i in step]

    def _mine(self, step: Sequence[int]) -> list[int]:
        """Positions in the step that this rank computes."""
        return self.ranks.divide(range(len(step)), self._of(step))[self.ranks.rank]

    def _look(self, step: Sequence[int]) -> Tensor | None:
        """What the objective sees of the step's examples before it learns, if it must look."""
        looks = self.objective.looks
        if looks == "never":
            return None
        groups = self._groups(step)
        if looks == "in parts" and self.ranks.count == 1 and len(groups) == 1:
            return None
        return look_at(self.model, self.objective, [self.examples[i] for i in step], groups)

    def _exchanged(self, own: Tensor | None, step: Sequence[int]) -> Tensor:
        """What all ranks saw."""
        num_rows = sum(self.objective.rows_of(self.examples[i]) for i in step)
        return self.ranks.sum_rows(own, num_rows).to(self.model.device)

    def _groups(self, step: Sequence[int]) -> list[tuple[list[int], bool]]:
        """Positions in the step of each micro-batch of this rank, and whether it counts."""
        lengths = self._of(step)
        groups = cut_by_tokens(self._mine(step), lengths, self.budget)
        shortest = min(range(len(step)), key=lambda position: lengths[position])
        return in_step(self.ranks, self.model, groups, [shortest])

    def _accumulate(self, step: Sequence[int], count: float, rows: Tensor | None) -> Tally:
        tally = Tally(watched=dict.fromkeys(self.objective.watched, 0.0), each=[0.0] * len(step))
        groups = self._groups(step)
        examples = [self.examples[i] for i in step]
        for number, (group, counts) in enumerate(groups):
            batch = self._batch([step[p] for p in group])
            members = [examples[p] for p in group]
            # A filler's losses count for nothing, whichever example it stands in for.
            seen = None if rows is None else Seen(examples, rows, group)
            with kept_activations(self.activations):
                losses = self.objective.losses(self.model, batch, members, seen)
            (losses.total * (counts / count)).backward()
            if number + 1 < len(groups):
                self._prepare([step[p] for p in groups[number + 1][0]])
            tally.num_tokens += counts * batch.num_tokens
            tally.num_computed += len(batch.input_ids)
            tally.num_filler += batch.num_filler
            tally.loss += counts * losses.total.item() / count
            for name, value in losses.watched.items():
                tally.watched[name] += counts * value / len(step)
            if counts:
                each = [math.nan] * len(group) if losses.each is None else losses.each.tolist()
                for place, value in zip(group, each, strict=True):
                    tally.each[place] = value
        return tally

    def _prepare(self, group: Sequence[int]) -> None:
        """Make a batch ready and send it ahead, while a GPU still works on the one before."""
        with record_function("luthier: data"):
            batch = self.objective.collate([self.examples[i] for i in group])
            self._ahead = tuple(group), batch.to(self.model.device)

    def _batch(self, group: Sequence[int]) -> Any:
        """The batch of a group; it may be ready already."""
        if self._ahead is None or self._ahead[0] != tuple(group):
            self._prepare(group)
        assert self._ahead is not None, "just made"
        batch, self._ahead = self._ahead[1], None
        return batch

    def _squeeze(self) -> Squeezed:
        free_memory()
        longest = max(self.lengths)
        if self.model.root is not None:
            # The others wait for this process, and what is broken off in a backward pass leaves
            # a spread-out model without gradients for the rest of the run.
            raise TrainingError(
                "memory ran out, and a model with runtime.sharding: fsdp cannot begin a step anew",
                advice=f"set training.micro_batch_tokens below {self.budget}, or "
                "training.activations: recompute",
            )
        if self.budget > longest:
            self.use(max(longest, self.budget // 2), self.activations)
        elif self.activations == "keep" and can_recompute(self.model):
            self.use(self.budget, "recompute")
        else:
            raise TrainingError(
                f"memory ran out for a single example of {longest} tokens",
                advice="lower training.max_length, use tuning.quantize: nf4, or a smaller model",
            )
        return Squeezed(self.budget, self.activations)

    def _forget(self) -> None:
        self._ahead = None
        for weight in self.trained.masters.values():
            weight.grad = None
        for weight in self.model.network.parameters():
            weight.grad = None
