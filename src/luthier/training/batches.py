"""Which examples make up each step, and how a step is cut to fit memory.

The order of rows is a pure function of seed, epoch and lengths, so the data position of a run is
its step number and nothing else. A step's examples are cut into micro-batches by tokens; how they
are cut changes memory and speed, never the sum of losses. No torch.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Literal


@dataclass(frozen=True)
class StepPlan:
    """The steps of a run: `num_steps` optimizer updates over all examples, each once an epoch.

    The step with the largest micro-batch is the first of all, so that what is too much for memory
    shows at once; where the order is given, it stays as it is.
    """

    lengths: tuple[int, ...]
    """Tokens of each example."""
    batch_size: int
    epochs: int
    seed: int
    micro_batch_tokens: int
    max_steps: int | None = None
    classes: tuple[int, ...] = ()
    """Class of each example, where classes are to come equally often: rows of rare ones come again,
    some of frequent ones not in every epoch. Two rows of one class stand side by side."""
    order: Literal["shuffled", "given"] = "shuffled"
    """Given: every epoch in the order of the examples, from the first step on."""

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer updates in one pass; the last one may be smaller."""
        return -(-len(self.lengths) // self.batch_size)

    @property
    def num_steps(self) -> int:
        """Optimizer updates in the run."""
        total = self.steps_per_epoch * self.epochs
        return total if self.max_steps is None else min(total, self.max_steps)

    def examples_of(self, step: int) -> list[int]:
        """Indices of the examples of a step, counted from 0."""
        if self.order == "shuffled" and step in (0, self._largest):
            step = self._largest - step
        return self._in_order(step)

    @cached_property
    def _largest(self) -> int:
        """The step of the first epoch whose largest micro-batch has most tokens."""
        steps = range(min(self.steps_per_epoch, self.num_steps))
        return max(steps, key=lambda step: self._most_tokens(self._in_order(step)), default=0)

    def _most_tokens(self, chosen: Sequence[int]) -> int:
        groups = cut_by_tokens(chosen, self.lengths, self.micro_batch_tokens)
        return sum(self.lengths[i] for i in groups[0])

    def _in_order(self, step: int) -> list[int]:
        epoch, position = divmod(step, self.steps_per_epoch)
        if self.order == "given":
            order: Sequence[int] = range(len(self.lengths))
        elif self.classes:
            order = _balanced_order(self.classes, self.seed, epoch)
        else:
            order = _order(len(self.lengths), self.seed, epoch)
        start = position * self.batch_size
        return [*order[start : start + self.batch_size]]


@lru_cache(maxsize=2)
def _order(num_examples: int, seed: int, epoch: int) -> list[int]:
    order = list(range(num_examples))
    random.Random(f"{seed}/{epoch}").shuffle(order)  # noqa: S311 - an order, not a secret
    return order


@lru_cache(maxsize=2)
def _balanced_order(classes: tuple[int, ...], seed: int, epoch: int) -> list[int]:
    """As many rows as there are, in pairs of one class, all classes equally often."""
    draw = random.Random(f"{seed}/{epoch}/balanced")  # noqa: S311 - an order, not a secret
    members: dict[int, list[int]] = {}
    for row, number in enumerate(classes):
        members.setdefault(number, []).append(row)
    ahead: dict[int, list[int]] = {number: [] for number in members}
    order: list[int] = []
    turns: list[int] = []
    while len(order) < len(classes):
        if not turns:
            turns = sorted(members)
            draw.shuffle(turns)
        number = turns.pop()
        for _ in range(min(2, len(members[number]))):
            if not ahead[number]:
                ahead[number] = draw.sample(members[number], len(members[number]))
            order.append(ahead[number].pop())
    return order[: len(classes)]


def cut_by_tokens(examples: Sequence[int], lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Examples in groups of at most `budget` tokens, each example in exactly one group.

    Groups come out balanced and longest first, so that memory is highest at once; an example
    longer than the budget gets a group of its own.
    """
    by_length = sorted(examples, key=lambda i: (-lengths[i], i))
    total = sum(lengths[i] for i in examples)
    groups: list[list[int]] = [[] for _ in range(max(1, -(-total // budget)))]
    loads = [0] * len(groups)
    for i in by_length:
        lightest = min(range(len(groups)), key=lambda g: (loads[g], g))
        if loads[lightest] and loads[lightest] + lengths[i] > budget:
            lightest = len(groups)
            groups.append([])
            loads.append(0)
        groups[lightest].append(i)
        loads[lightest] += lengths[i]
    return sorted((g for g in groups if g), key=lambda g: -sum(lengths[i] for i in g))
