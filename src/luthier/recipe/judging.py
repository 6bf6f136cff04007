"""How answers are judged: the same for a run and for systems of a trial."""

from typing import Literal, Self

from pydantic import Field, model_validator

from luthier.recipe.section import Auto, Count, Section

MetricName = Literal[
    "exact", "normalised", "number", "json", "fields", "regex", "chrf", "bleu", "rouge_l",
    "preference_probability", "preference", "loss", "code", "tool_calls", "refusal",
    "answer_tokens", "latency", "accuracy", "balanced_accuracy", "macro_f1", "log_loss",
    "labels", "labels_f1", "micro_f1", "absolute_error", "quadratic_kappa",
    "spearman", "ndcg_10", "mrr_10", "recall_10",
]  # fmt: skip


class Judging(Section):
    """How answers are scored and compared."""

    metrics: tuple[MetricName, ...] | Auto = "auto"
    """Scores to compute; auto chooses by what the answers look like."""
    primary: MetricName | Auto = "auto"
    """The score the verdict is about; auto takes the first of the metrics."""
    pattern: str = ""
    """Regular expression that an answer must match from start to end; for the regex metric."""
    tolerance: float = Field(default=1e-6, ge=0)
    """Share by which a number may differ from the right one; for the number metric."""
    limit: int | None = Field(default=None, ge=1)
    """Use at most this many test rows, chosen by hash so that the choice is stable."""
    group: str = ""
    """Column of rows that belong together, such as a document's; they count as fewer than rows."""
    max_new_tokens: Count = "auto"
    """Longest answer in tokens."""
    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    """Confidence level of every interval."""
    resamples: int = Field(default=10_000, ge=100)
    """Bootstrap resamples."""

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if self.metrics != "auto" and "regex" in self.metrics and not self.pattern:
            raise ValueError("the regex metric needs evaluation.pattern")
        if self.metrics != "auto" and self.primary not in ("auto", *self.metrics):
            raise ValueError(f"primary is {self.primary!r}, which is not among the metrics")
        if self.metrics == ():
            raise ValueError("metrics names none; name one, or leave it to auto")
        return self


class Evaluation(Judging):
    """How before and after are compared, on the test rows."""

    shots: tuple[int, ...] = (4,)
    """Numbers of training examples to put in the prompt, one baseline each."""

    @model_validator(mode="after")
    def _has_distinct_shots(self) -> Self:
        if any(shots < 1 for shots in self.shots):
            raise ValueError("shots must be 1 or more; the prompt without examples always runs")
        if len(set(self.shots)) < len(self.shots):
            raise ValueError("shots names the same number twice")
        return self
