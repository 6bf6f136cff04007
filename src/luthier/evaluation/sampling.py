"""Several answers to each row, drawn at a temperature: how a system does on average.

A row's score is the mean over its answers; the rows stay what is resampled and compared, since
answers to one row are no facts of their own (Miller 2024, arXiv 2411.00640, section 3). Of right
and wrong answers come besides: whether one of all k is right (pass@k, Chen et al. 2021, arXiv
2107.03374), and whether answers to a row differ.
"""

from collections.abc import Sequence
from dataclasses import replace

from luthier.data import Example
from luthier.evaluation.comparing import estimate, groups_of, perplexity
from luthier.evaluation.scorers import KnownScorer, RowScorer
from luthier.evaluation.values import Metric, SystemResult
from luthier.recipe import Judging

PASS, FLIPS = "pass_at", "flips"


def averaged(scorers: Sequence[RowScorer], num_samples: int) -> tuple[KnownScorer, ...]:
    """What is scored over several answers: each metric's mean, and what more pass and fail tell."""
    found = []
    for scorer in scorers:
        metric = scorer.metric
        title = f"{metric.title}, mean of {num_samples} answers"
        found.append(replace(metric, kind="number", title=title))
        if metric.kind == "pass_fail":
            found.append(
                Metric(
                    f"{metric.name}_{PASS}_{num_samples}",
                    f"{metric.title} in one of {num_samples} answers", "number", True, "share",
                )
            )  # fmt: skip
            found.append(
                Metric(
                    f"{metric.name}_{FLIPS}", f"rows whose answers differ in {metric.title}",
                    "number", False, "share",
                )
            )  # fmt: skip
    return tuple(KnownScorer(metric) for metric in found)


def combine(
    draws: Sequence[SystemResult],
    scorers: Sequence[RowScorer],
    examples: Sequence[Example],
    evaluation: Judging,
    *,
    seed: int = 0,
) -> SystemResult:
    """One system from its draws, each with an answer to every row; the first one's are shown.

    A row that some draw did not answer has the mean of the others.
    """
    scores: dict[str, tuple[float | None, ...]] = {}
    for scorer in scorers:
        name = scorer.metric.name
        by_row = [
            [score for score in row if score is not None]
            for row in zip(*(draw.scores[name] for draw in draws), strict=True)
        ]
        scores[name] = tuple(sum(row) / len(row) if row else None for row in by_row)
        if scorer.metric.kind == "pass_fail":
            k = len(draws)
            scores[f"{name}_{PASS}_{k}"] = tuple(float(any(r)) if r else None for r in by_row)
            scores[f"{name}_{FLIPS}"] = tuple(float(len({*r}) > 1) if r else None for r in by_row)
    groups = groups_of(examples, evaluation)
    estimates = {
        scorer.metric.name: estimate(
            scorer.metric, scores[scorer.metric.name], evaluation, seed=seed, groups=groups
        )
        for scorer in averaged(scorers, len(draws))
    }
    first = draws[0]
    return replace(
        first,
        scores=scores,
        estimates=estimates,
        seconds=sum(draw.seconds for draw in draws),
        perplexity=perplexity(first.predictions),
    )
