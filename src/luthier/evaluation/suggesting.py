"""Which metrics fit the data, when the recipe leaves it open.

The held-out rows come in, names of metrics go out, the primary one first, with the
reason in words for the recipe's record. Looks at nothing but
their kind and the text of their targets.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from luthier.data import Chat, Example, LabelSet, Pair, Preference, Text, are_grades
from luthier.errors import EvaluationError
from luthier.evaluation.json_answers import read_json
from luthier.recipe import MetricName

# Lengths up to which a whole answer is expected to come out letter for letter. Commands, labels
# and corrected words lie below (medians of 1 to 3 words), one-line descriptions above (7 words).
SHORT_WORDS = 3
SHORT_CHARACTERS = 30
# A set of answers is closed when each comes this often on average.
CLOSED_SET_REPEATS = 5
# A label so many times as frequent as another makes plain accuracy say little.
UNEVEN = 3.0


@dataclass(frozen=True, slots=True)
class Suggestion:
    """Metrics that fit, the primary one first, and why."""

    metrics: tuple[MetricName, ...]
    reason: str


def suggest_metrics(examples: Sequence[Example]) -> Suggestion:
    """Choose metrics by the kind of the examples and what their reference answers look like."""
    if examples and all(isinstance(example, Text) for example in examples):
        return Suggestion(("loss",), "raw text has no answers to compare")
    if examples and all(example.target.tool_calls for example in examples):
        return Suggestion(("tool_calls", "loss"), "every answer calls tools")
    if examples and all(isinstance(e, Chat) and e.choices for e in examples):
        known = sum(isinstance(e, Chat) and e.target.content in e.choices for e in examples)
        # Answers that are letters or numbers of choices are judged as they are written.
        if 2 * known >= len(examples):
            return Suggestion(("choice", "exact", "loss"), "every row has choices")
    by_text = suggest_by_text([example.target.content for example in examples])
    if all(isinstance(example, Preference) for example in examples):
        by_likelihood: tuple[MetricName, ...] = ("preference_probability", "preference")
        metrics = (*by_likelihood, *by_text.metrics)
        return Suggestion(metrics, f"preferences; {by_text.reason}")
    return by_text


def suggest_for_texts(examples: Sequence[Example], labels: LabelSet | None) -> Suggestion:
    """Choose metrics for models that read texts: by the kind of labels, or of what is searched."""
    if labels is None:
        if any(isinstance(e, Pair) and e.score is not None for e in examples):
            return Suggestion(("spearman",), "pairs have scores")
        return Suggestion(("ndcg_10", "mrr_10", "recall_10"), "texts are to be found")
    if labels.kind == "number":
        if are_grades(examples):
            graded: tuple[MetricName, ...] = ("absolute_error", "quadratic_kappa", "spearman")
            return Suggestion(graded, "labels are grades: a few whole numbers")
        return Suggestion(("absolute_error", "spearman"), "labels are numbers")
    if labels.kind == "multi":
        metrics: tuple[MetricName, ...] = ("labels_f1", "labels", "micro_f1", "macro_f1")
        return Suggestion(metrics, "rows have lists of labels")
    if max(labels.counts) > UNEVEN * min(labels.counts):
        reason = f"one label of {labels.num_labels}; {max(labels.counts):,} rows of one, "
        reason += f"{min(labels.counts):,} of another"
        return Suggestion(("balanced_accuracy", "accuracy", "macro_f1", "log_loss"), reason)
    reason = f"one label of {labels.num_labels}, about as many rows of each"
    return Suggestion(("accuracy", "macro_f1", "log_loss"), reason)


def suggest_by_text(targets: Sequence[str]) -> Suggestion:
    """Choose metrics by what the reference answers look like."""
    if not targets:
        raise EvaluationError(
            "there is no held-out row to choose metrics from",
            where="evaluation.metrics",
            accepted="at least one row in the test split",
            advice="raise data.test_share, name a file as data.test, or name the metrics",
        )
    if all(_is_json_container(target) for target in targets):
        return Suggestion(
            ("exact", "fields", "json", "loss"), "every answer is a JSON object or array"
        )
    distinct = len({target.strip() for target in targets})
    if distinct * CLOSED_SET_REPEATS <= len(targets):
        return Suggestion(
            ("exact", "chrf", "loss"), f"{len(targets)} answers take only {distinct} values"
        )
    words = median(len(target.split()) for target in targets)
    characters = median(len(target.strip()) for target in targets)
    size = f"the median answer has {words:g} words and {characters:g} characters"
    if words <= SHORT_WORDS and characters <= SHORT_CHARACTERS:
        return Suggestion(("exact", "chrf", "loss"), f"answers are short: {size}")
    return Suggestion(("chrf", "rouge_l", "loss"), f"answers are free text: {size}")


def _is_json_container(target: str) -> bool:
    answer = read_json(target)
    return answer is not None and answer.kind in ("object", "array")
