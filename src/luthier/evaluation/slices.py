"""A system slice by slice: rows that share a value in a column, such as a language or a source."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from luthier.data import Example
from luthier.evaluation.comparing import estimate, groups_of
from luthier.evaluation.evaluating import AnyScorer
from luthier.evaluation.values import Estimate, Metric, SystemResult
from luthier.evaluation.wholes import WholeScorer, estimate_whole
from luthier.recipe import Judging

MIN_ROWS = 5
"""Rows of a slice below which it is not told apart."""
MAX_VALUES = 20
"""Values of a column above which it makes no slices."""


@dataclass(frozen=True, slots=True)
class Slice:
    """Rows that have a value in a column."""

    column: str
    value: str
    num_rows: int
    estimate: Estimate


@dataclass(frozen=True, slots=True)
class Slices:
    """All slices of the held-out rows, as one system does on them by one metric."""

    system: str
    metric: Metric
    parts: tuple[Slice, ...]


def slices_of(
    system: SystemResult,
    scorer: AnyScorer,
    examples: Sequence[Example],
    evaluation: Judging,
    *,
    seed: int,
) -> Slices:
    """The scorer's number for each value of each column that parts the rows."""
    parts = []
    for column in sorted({name for example in examples for name in example.slices}):
        values = Counter(e.slices[column] for e in examples if column in e.slices)
        if not 2 <= len(values) <= MAX_VALUES:
            continue
        for value, num_rows in sorted(values.items()):
            if num_rows >= MIN_ROWS:
                places = [i for i, e in enumerate(examples) if e.slices.get(column) == value]
                found = _estimate(system, scorer, examples, places, evaluation, seed)
                parts.append(Slice(column, value, num_rows, found))
    return Slices(system.name, scorer.metric, tuple(parts))


def _estimate(
    system: SystemResult,
    scorer: AnyScorer,
    examples: Sequence[Example],
    places: Sequence[int],
    evaluation: Judging,
    seed: int,
) -> Estimate:
    """Of the rows at these places."""
    if isinstance(scorer, WholeScorer):
        predictions = [system.predictions[i] for i in places]
        chosen = [examples[i] for i in places]
        return estimate_whole(scorer, predictions, chosen, evaluation, seed=seed)
    scores, groups = system.scores[scorer.metric.name], groups_of(examples, evaluation)
    return estimate(
        scorer.metric, [scores[i] for i in places], evaluation, seed=seed,
        groups=[groups[i] for i in places] if groups else (),
    )  # fmt: skip
