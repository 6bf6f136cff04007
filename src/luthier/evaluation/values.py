"""The typed values of the evaluation room, from one answer to the verdict.

predictions -> scores -> estimates -> comparison -> verdict. Everything is a frozen dataclass that
`dataclasses.asdict` turns into report.json. Nothing here knows models, runs or pages.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from luthier.data import Example

LEAST_CONSISTENCY = 0.7
"""Below it nothing is concluded from what a judge says."""

Kind = Literal["zero_shot", "few_shot", "baseline", "rival", "tuned", "candidate"]
"""To the verdict: the one in question (tuned, candidate), or a rival."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a model answered to one example, and how surprised it was by the reference answer."""

    example_id: str
    text: str
    stopped: bool
    """True when the model ended its turn itself; False when it was cut at the token limit."""
    num_tokens: int
    target_loss: float | None = None
    """Mean negative log-likelihood of the reference answer in nats per token, if known."""
    target_tokens: int | None = None
    rejected_loss: float | None = None
    """The same for the rejected answer of a preference, if there is one."""
    labels: tuple[str, ...] = ()
    """The labels a classifier gave."""
    probabilities: tuple[float, ...] = ()
    """Of all labels in the order of the label set, where the system knows them."""
    value: float | None = None
    """The number it answered, or how alike it found two texts."""
    ranking: tuple[str, ...] = ()
    """Names of the texts it found, best first."""
    tool_calls: tuple[tuple[str, str], ...] = ()
    """Name and arguments (JSON text) of each call it made."""
    prompt_tokens: int | None = None
    """Tokens it was asked with, where they are counted."""
    seconds: float | None = None
    """Until the answer was there, where each is timed."""
    cost: float | None = None
    """Price of it, where prices are known."""
    picked: str = ""
    """The likeliest of the row's choices, where they were weighed."""
    error: str = ""
    """Why there is no answer; such a row is scored by nothing."""


class Predictor(Protocol):
    """Anything that answers examples: a local model, an endpoint, a recorded file, a fake."""

    @property
    def name(self) -> str:
        """Name of the system in tables, such as "4 examples in the prompt"."""
        ...

    def predict(self, examples: Sequence[Example]) -> list[Prediction]:
        """One prediction per example, in the same order."""
        ...


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number over many scores, with its interval. `value` is None when there was no data."""

    value: float | None
    low: float | None
    high: float | None
    n: int
    method: str
    """How the interval was made, such as "Wilson" or "BCa bootstrap"."""


@dataclass(frozen=True, slots=True)
class Metric:
    """What a scorer measures and how to read it."""

    name: str
    title: str
    kind: Literal["pass_fail", "number", "whole"]
    """Right or wrong on each row, a number for each row, or one number for all rows together."""
    higher_is_better: bool
    unit: Literal["share", "points", "nats", "plain"]
    """share: 0..1 shown as percent; points: 0..100; nats: a loss; plain: a number as it is."""


@dataclass(frozen=True, slots=True)
class SystemResult:
    """One system on all test rows."""

    name: str
    kind: Kind
    predictions: tuple[Prediction, ...]
    scores: dict[str, tuple[float | None, ...]]
    """Metric name -> one score per test row, in the order of the rows; None: not scorable.

    Metrics over all rows together have none."""
    estimates: dict[str, Estimate]
    seconds: float
    perplexity: float | None
    """Of the reference answers, over all their tokens; None when their loss is not known."""
    unscored: dict[str, str] = field(default_factory=dict)
    """Name of a grader -> how many answers it could not judge, and why."""

    @property
    def is_candidate(self) -> bool:
        """Whether the verdict is about it."""
        return self.kind in ("tuned", "candidate")


@dataclass(frozen=True, slots=True)
class Comparison:
    """A paired comparison of two systems on one metric, over the same rows."""

    metric: str
    baseline: str
    candidate: str
    n: int
    baseline_value: float
    candidate_value: float
    difference: float
    """Candidate less baseline, in the metric's own unit."""
    low: float | None
    high: float | None
    interval_method: str
    p_value: float
    test: str
    minimum_detectable: float | None
    """Smallest true difference this test set would have shown with 80 % power."""
    fixed: tuple[str, ...]
    """Ids of rows the candidate got right (or clearly better) and the baseline did not."""
    broken: tuple[str, ...]
    adjusted_p_value: float | None = None
    """Holm's adjustment over all comparisons but the verdict's; None for the verdict's own."""
    num_groups: int | None = None
    """Groups that the rows come in, where the recipe says so."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The decision in words, and the comparison it stands on."""

    decision: Literal["better", "worse", "cannot tell"]
    paragraph: str
    comparison: Comparison


DecisionKind = Literal["promote", "keep iterating", "prompting is enough", "not distinguishable"]


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do with the system in question."""

    kind: DecisionKind
    reasons: tuple[str, ...]
    next_steps: tuple[str, ...]

    @property
    def words(self) -> str:
        """All of it, a line for each next step."""
        first = f"{self.kind.capitalize()}: {'; '.join(self.reasons)}."
        return "\n".join([first, *(f"- {step}" for step in self.next_steps)])


Outcome = float | None


@dataclass(frozen=True, slots=True)
class Preferred:
    """How often one system is preferred to another."""

    won: int
    lost: int
    tied: int
    unjudged: int
    rate: Estimate
    """Share of rows won, ties counting half."""
    decided: Estimate
    """Share won of those that are no ties."""
    p_value: float
    test: str
    length_controlled: float | None
    """Share that would be won of decided rows if both answers were equally long."""


@dataclass(frozen=True, slots=True)
class Duel:
    """What a judge preferred, on all rows."""

    judge: str
    candidate: str
    rival: str
    outcomes: tuple[Outcome, ...]
    """One a row: the candidate won (1), lost (0), tied (0.5), or the row was not judged."""
    preferred: Preferred
    consistency: Estimate
    """Share of rows judged alike both times."""
    why_unjudged: str = ""
    """Of the first row that was not judged, though both had answered."""

    @property
    def is_trusted(self) -> bool:
        """Whether the judge is consistent enough for its word to count."""
        share = self.consistency.value
        return share is None or share >= LEAST_CONSISTENCY


@dataclass(frozen=True, slots=True)
class Change:
    """A number of one subject of general ability, before and after."""

    subject: str
    n: int
    before: float
    after: float


LEAST_QUESTIONS = 20
"""Of fewer, an interval says too little to call an ability kept."""


@dataclass(frozen=True, slots=True)
class General:
    """How a model's general ability has changed."""

    before: Estimate
    after: Estimate
    """Mean share of likelihood that right choices have."""
    difference: float
    low: float | None
    high: float | None
    margin: float
    """Greatest loss that is none."""
    confidence: float
    picked: tuple[Change, ...]
    """Share of questions whose likeliest choice is right, by subject."""
    perplexity: tuple[Change, ...]
    """Of passages, by subject."""
    divergence: float | None
    """Mean KL(after || before) over tokens of the passages, in nats."""

    @property
    def outcome(self) -> Literal["kept", "lost", "not shown"]:
        """Whether the ability is kept; "not shown" when the interval holds both."""
        is_enough = self.before.n >= LEAST_QUESTIONS
        if is_enough and self.low is not None and self.low > -self.margin:
            return "kept"
        return "lost" if self.high is not None and self.high < -self.margin else "not shown"

    @property
    def words(self) -> str:
        """What came of it, in a sentence or two."""
        said = {
            "kept": "General ability is kept",
            "lost": "General ability is lost",
            "not shown": "General ability may be lost",
        }[self.outcome]
        limits = "unknown"
        if self.low is not None and self.high is not None:
            limits = f"{100 * self.low:z.1f} to {100 * self.high:z.1f}"
        before, after = (100 * (each.value or 0.0) for each in (self.before, self.after))
        moved = ""
        if self.perplexity:
            changes = (f"{c.before:.1f} to {c.after:.1f} on {c.subject}" for c in self.perplexity)
            moved = f" Perplexity went from {', '.join(changes)}."
        return (
            f"{said}: right choices of {self.before.n:,} questions have {before:.1f} % of the "
            f"likelihood before and {after:.1f} % after, {100 * self.difference:+z.1f} points "
            f"({100 * self.confidence:g} % interval {limits}; a loss of {100 * self.margin:g} "
            f"would be too much).{moved}"
        )


@dataclass(frozen=True, slots=True)
class EvaluationResult:
    """All systems on the same rows, every comparison made, and the verdict."""

    metrics: tuple[Metric, ...]
    primary: str
    examples: tuple[Example, ...]
    systems: tuple[SystemResult, ...]
    comparisons: tuple[Comparison, ...]
    verdict: Verdict | None
    decision: Decision | None = None
    duels: tuple[Duel, ...] = ()
    """What a judge preferred, against each rival."""
    general: General | None = None
    """What became of the model's general ability, where that was looked at."""
