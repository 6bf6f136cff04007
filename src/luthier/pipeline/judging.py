"""What judges held-out rows: scorers of written answers, labels, numbers or searches; a judge."""

from collections.abc import Callable, Mapping

from luthier.data import Collection, Example, LabelSet
from luthier.errors import ConfigError
from luthier.evaluation import (
    RANKING_SCORERS,
    AnyScorer,
    Item,
    Means,
    PairJudge,
    build_graders,
    build_scorers,
    class_scorers,
    number_scorers,
    pair_judge,
)
from luthier.pipeline.events import Event
from luthier.pipeline.means import open_means
from luthier.recipe import TEXT_METHODS, Judging, Recipe, settled


def judge_of(judging: Judging, means: Means) -> PairJudge | None:
    """The judge that settings name, or none."""
    return pair_judge(judging, means.ask) if judging.judge.model else None


def scorers_of(
    recipe: Recipe,
    test: tuple[Example, ...] = (),
    labels: LabelSet | None = None,
    collection: Collection | None = None,
    items: Mapping[str, Item] | None = None,
    observe: Callable[[Event], None] = lambda event: None,
) -> tuple[AnyScorer, ...]:
    """The scorers of a resolved recipe, the primary one first.

    `items` are rows' fields by their places, for graders. Raises ConfigError for a metric that
    cannot judge such rows.
    """
    evaluation = recipe.evaluation
    if recipe.method.kind not in TEXT_METHODS:
        means = open_means(evaluation, recipe.runtime, items, observe)
        return (*build_graders(evaluation, means), *build_scorers(evaluation))
    if evaluation.graders or evaluation.judge.model:
        raise ConfigError(
            "judge written answers, and this method writes none", where="evaluation.graders",
            accepted="metrics of labels, numbers or searches",
        )  # fmt: skip
    known: Mapping[str, AnyScorer]
    if labels is not None:
        known = class_scorers(labels, test)
    else:
        known = RANKING_SCORERS if collection is not None else number_scorers()
    names = dict.fromkeys((settled(evaluation.primary), *settled(evaluation.metrics)))
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ConfigError(
            f"{', '.join(unknown)} cannot judge these rows",
            where="evaluation.metrics",
            accepted=f"auto, or some of {', '.join(known)}",
        )
    return tuple(known[name] for name in names)
