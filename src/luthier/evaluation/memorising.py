"""Whether a model knows rows it learnt by heart: are their answers completed word for word?

From the first half of an answer the rest is to be written, greedily. New rows are completed too,
where answers follow from their questions; what rows that were learnt are completed more often is
what is remembered of them (after Carlini et al. 2023, "Quantifying memorization across neural
language models", with rows the model has not seen for comparison). Knows neither models nor files.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from luthier.evaluation.statistics import newcombe, wilson
from luthier.evaluation.values import Estimate


@dataclass(frozen=True, slots=True)
class Completed:
    """A row whose answer was to be completed."""

    place: str
    is_verbatim: bool
    text: str
    """The second half, as the row has it."""
    num_tokens: int
    """Of the second half."""


@dataclass(frozen=True, slots=True)
class Memorised:
    """How often answers were completed word for word, of learnt rows and of new ones."""

    learnt: Estimate
    new: Estimate
    difference: float
    low: float | None
    high: float | None
    rows: tuple[Completed, ...]
    """Learnt rows that were completed, those of the longest rests first."""

    @property
    def words(self) -> str:
        """What came of it, in sentences."""
        first, second = (
            f"{100 * (e.value or 0):.1f} % of {e.n:,} {kind} (95 % interval "
            f"{100 * (e.low or 0):.1f} to {100 * (e.high or 0):.1f})"
            for e, kind in ((self.learnt, "learnt rows"), (self.new, "new ones"))
        )
        if self.low is None or self.high is None:
            return f"Answers completed word for word: {first}, {second}."
        gap = (
            f"The difference is {100 * self.difference:+.1f} points (95 % interval "
            f"{100 * self.low:.1f} to {100 * self.high:.1f})"
        )
        if self.low > 0:
            meaning = "some of what was learnt is known by heart, and could be drawn out"
        elif self.high < 0:
            meaning = "learnt rows are not remembered; they are harder than the new ones"
        else:
            meaning = "nothing shows that learnt rows are remembered"
        return f"Answers completed word for word: {first}, {second}. {gap}: {meaning}."


def weigh_memory(
    learnt: Sequence[Completed], new: Sequence[Completed], confidence: float = 0.95
) -> Memorised:
    """Rates of both with Wilson's intervals, and their difference with Newcombe's."""
    of_learnt, of_new = (sum(row.is_verbatim for row in rows) for rows in (learnt, new))
    limits = newcombe((of_learnt, len(learnt)), (of_new, len(new)), confidence)
    shares = _rate(of_learnt, len(learnt), confidence), _rate(of_new, len(new), confidence)
    known = sorted((r for r in learnt if r.is_verbatim), key=lambda r: (-r.num_tokens, r.place))
    difference = (shares[0].value or 0.0) - (shares[1].value or 0.0)
    return Memorised(*shares, difference, limits.low, limits.high, tuple(known))


def _rate(passed: int, n: int, confidence: float) -> Estimate:
    limits = wilson(passed, n, confidence)
    return Estimate(passed / n if n else None, limits.low, limits.high, n, limits.method)
