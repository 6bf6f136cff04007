"""How answers are judged: the same for a run and for systems of a trial."""

from pathlib import Path
from typing import Literal, Self, get_args

from pydantic import Field, model_validator

from luthier.recipe.grading import Grader
from luthier.recipe.section import Auto, Count, Section

MetricName = Literal[
    "exact", "normalised", "number", "json", "fields", "regex", "chrf", "bleu", "rouge_l",
    "preference_probability", "preference", "loss", "code", "tool_calls", "choice", "refusal",
    "offensive",
    "answer_tokens", "latency", "cost", "accuracy", "balanced_accuracy", "macro_f1", "log_loss",
    "labels", "labels_f1", "micro_f1", "absolute_error", "quadratic_kappa",
    "spearman", "ndcg_10", "mrr_10", "recall_10",
]  # fmt: skip


JUDGE = "judge"
"""Name of the score of answers that a model prefers."""


class Judge(Section):
    """A model that says which of two answers is the better one."""

    model: str = ""
    """http://HOST/PATH#MODEL; empty asks none. Graders that name a bare model ask it there."""
    criteria: str = ""
    """What makes an answer the better one."""
    input_price: float = Field(default=0.0, ge=0)
    """Price of a million tokens that it is asked with, in any currency."""
    output_price: float = Field(default=0.0, ge=0)
    """Price of a million tokens that it answers."""


class Judging(Section):
    """How answers are scored and compared."""

    metrics: tuple[MetricName, ...] | Auto = "auto"
    """Scores to compute; auto chooses by what the answers look like."""
    primary: str | Auto = "auto"
    """The score the verdict is about: a metric, a grader's name, or judge; auto takes the first of
    the graders, or else of the metrics."""
    graders: tuple[Grader, ...] = ()
    """Graders as OpenAI's interface has them, besides the metrics."""
    least_gain: float = Field(default=0.0, ge=0)
    """Smallest gain over the strongest rival that is worth having, in the primary metric's unit;
    0.02 is 2 points of a share."""
    judge: Judge = Judge()
    """A model that prefers one of two answers, or none."""
    embedder: str = ""
    """Model whose vectors tell how alike texts are, for graders by cosine."""
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
        if self.metrics == () and not self.graders:
            raise ValueError("metrics names none; name one, or leave it to auto")
        names = [grader.name for grader in self.graders]
        taken = {*get_args(MetricName), JUDGE, "auto"}
        twice = next((n for i, n in enumerate(names) if n in names[:i] or n in taken), None)
        if twice is not None:
            raise ValueError(f"a grader is called {twice!r}, as another score is")
        known = (*(get_args(MetricName) if self.metrics == "auto" else self.metrics), *names)
        if self.primary == JUDGE and not self.judge.model:
            raise ValueError("primary is 'judge', and evaluation.judge.model names none")
        if self.primary not in ("auto", JUDGE, *known):
            raise ValueError(f"primary is {self.primary!r}, which is not among the metrics")
        return self


class Evaluation(Judging):
    """How before and after are compared, on the test rows."""

    shots: tuple[int, ...] = (4,)
    """Numbers of training examples to put in the prompt, one baseline each."""
    nearest: int = Field(default=4, ge=0)
    """Training examples whose questions are nearest to each row's, put in its prompt: another
    baseline; 0 for none."""
    documents: Path | None = None
    """Folder of texts (.txt, .md) in which passages for each question are looked up: another
    baseline."""
    general: Path | Literal["built-in", "none"] = "built-in"
    """What a model that writes is asked besides its task, before and after: the built-in questions
    and texts, a file of them, or none."""
    general_margin: float = Field(default=0.05, gt=0, le=1)
    """Loss of general ability that does not matter; 0.05 is 5 points. A model that may have lost
    more is not promoted."""
    instructions: tuple[str, ...] = ()
    """Instructions to try in place of the rows' own, alone and with the nearest examples; those
    that are best on validation rows are another baseline."""

    @model_validator(mode="after")
    def _has_distinct_shots(self) -> Self:
        if any(shots < 1 for shots in self.shots):
            raise ValueError("shots must be 1 or more; the prompt without examples always runs")
        if not all(map(str.strip, self.instructions)):
            raise ValueError("instructions holds an empty one; the rows' own always run")
        if len(set(self.shots)) < len(self.shots):
            raise ValueError("shots names the same number twice")
        return self
