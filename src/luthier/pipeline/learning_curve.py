"""A learning curve: runs on a quarter, half and all training rows, and what more would bring.

Every run is one like any other, judged on the same held-out rows; a run that was finished before is
not made again. Smaller parts are parts of the larger ones, chosen by what rows ask.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from luthier.errors import ConfigError
from luthier.evaluation import (
    Comparison,
    Doubled,
    EvaluationResult,
    Metric,
    SystemResult,
    compare,
    double,
    format_difference,
    format_estimate,
    format_interval,
    format_value,
)
from luthier.pipeline.events import Event, Note
from luthier.pipeline.preparing import Prepared, prepare
from luthier.pipeline.tuning import tune
from luthier.recipe import ReadRecipe, recipe_hash
from luthier.report import CurvePoint, read_report, render_curve_page
from luthier.runs import Run, Workspace, write_atomically

SHARES = (0.25, 0.5, 1.0)
ALONE = {
    "shots": (), "nearest": 0, "documents": None, "instructions": (), "general": "none",
}  # fmt: skip
"""Settings of a run that is compared with the prompt alone."""
LEAST_ROWS = 8
"""Training rows below which nothing is learnt that says something of more."""


@dataclass(frozen=True)
class LearningCurve:
    """How a score grows with the training rows."""

    metric: Metric
    points: tuple[CurvePoint, ...]
    """The fewest rows first."""
    num_test: int
    last_gain: Comparison
    """Of the largest part against the one before."""
    doubled: Doubled | None
    words: str
    report: Path


def draw_learning_curve(
    read: ReadRecipe,
    shares: Sequence[float] = SHARES,
    observe: Callable[[Event], None] = lambda event: None,
    is_interrupted: Callable[[], bool] = lambda: False,
) -> LearningCurve | None:
    """Tune on each share of the training rows, and say what more of them would bring.

    None when it was interrupted: the same command goes on. Raises ConfigError for shares that are
    none, and where too few rows are there.
    """
    whole = prepare(read, lambda text: observe(Note(text)))
    sizes = _sizes(shares, len(whole.dataset.train))
    if not whole.test:
        raise ConfigError("has no held-out rows to judge on", where="data", accepted="a test split")
    found: list[tuple[int, Run, EvaluationResult]] = []
    for number in sizes:
        prepared = _part(read, whole, number, observe)
        run, result = _tuned(prepared, observe, is_interrupted)
        if result is None:
            return None
        found.append((number, run, result))
    return _drawn(whole, found)


def _sizes(shares: Sequence[float], num_rows: int) -> list[int]:
    wrong = next((share for share in shares if not 0 < share <= 1), None)
    if wrong is not None or len(set(shares)) < 2:
        said = f"is {wrong:g}" if wrong is not None else f"are {len(set(shares))}"
        raise ConfigError(said, where="--share", accepted="two shares or more, each to 1")
    sizes = sorted({max(1, round(share * num_rows)) for share in shares})
    if sizes[0] < LEAST_ROWS or len(sizes) < 2:
        raise ConfigError(
            f"has {num_rows} training rows, of which the smallest part is {sizes[0]}", where="data",
            accepted=f"parts of {LEAST_ROWS} rows or more", advice="give larger shares",
        )  # fmt: skip
    return sizes


def _part(
    read: ReadRecipe, whole: Prepared, number: int, observe: Callable[[Event], None]
) -> Prepared:
    """The recipe on so many of its training rows; only the whole is compared with examples."""
    recipe = read.recipe
    if number >= len(whole.dataset.train):
        return whole
    changes = {
        "name": f"{recipe.name or recipe.data.train.stem[:40]}-{number}",
        "data": recipe.data.model_copy(update={"limit": number}),
        "evaluation": recipe.evaluation.model_copy(update=ALONE),
    }
    part = replace(read, recipe=recipe.model_copy(update=changes))
    return prepare(part, lambda text: observe(Note(text)))


def _tuned(
    prepared: Prepared, observe: Callable[[Event], None], is_interrupted: Callable[[], bool]
) -> tuple[Run, EvaluationResult | None]:
    """A finished run of the recipe: one that is there, or a new one; no result if interrupted."""
    workspace = Workspace.open(prepared.recipe.runtime.workspace)
    try:
        run = workspace.finished(
            recipe_hash(prepared.recipe), prepared.dataset.fingerprint, prepared.source.sha256
        )
    finally:
        workspace.close()
    if run is not None:
        report = read_report(json.loads(run.path("report.json").read_text("utf-8")))
        return run, report.evaluation
    tuned = tune(prepared, observe, is_interrupted)
    return tuned.run, tuned.evaluation


def _drawn(whole: Prepared, found: Sequence[tuple[int, Run, EvaluationResult]]) -> LearningCurve:
    _, last, result = found[-1]
    metric = _by_rows(result)
    systems = [next(s for s in each.systems if s.is_candidate) for _, _, each in found]
    evaluation, seed = whole.recipe.evaluation, whole.recipe.training.seed
    largest = replace(systems[-1], name="with more rows")
    gain = compare(metric, systems[-2], largest, evaluation, seed=seed)
    if gain is None:
        raise ConfigError("no held-out row is scored by both", where=metric.name)
    sizes = [number for number, _, _ in found]
    scores = list(zip(*_known(metric, systems), strict=True))
    doubled = double(
        metric, sizes, scores, confidence=evaluation.confidence, resamples=evaluation.resamples,
        seed=seed,
    ) if scores else None  # fmt: skip
    points = tuple(
        CurvePoint(number, system.estimates[metric.name], run.id)
        for (number, run, _), system in zip(found, systems, strict=True)
    )
    words = " ".join(_words(metric, points, gain, doubled, evaluation.confidence))
    folder = last.folder.parent.parent / "curves" / last.id
    curve = LearningCurve(metric, points, gain.n, gain, doubled, words, folder / "curve.html")
    page = render_curve_page(last.record.name, metric, points, doubled, words)
    write_atomically(folder / "curve.html", page)
    write_atomically(folder / "curve.json", json.dumps(_facts(curve), indent=1))
    return curve


def _by_rows(result: EvaluationResult) -> Metric:
    """The primary metric, or the first whose scores are of rows: numbers over all have no power."""
    first = [m for m in result.metrics if m.name == result.primary]
    return next((m for m in [*first, *result.metrics] if m.kind != "whole"), result.metrics[0])


def _known(metric: Metric, systems: Sequence[SystemResult]) -> Iterator[list[float]]:
    """Scores of each row that all systems have a score of."""
    for own in zip(*(system.scores[metric.name] for system in systems), strict=True):
        if all(score is not None for score in own):
            yield [float(score) for score in own if score is not None]


def _words(
    metric: Metric,
    points: Sequence[CurvePoint],
    gain: Comparison,
    doubled: Doubled | None,
    confidence: float,
) -> Iterator[str]:
    said = "; ".join(
        f"{point.num_rows:,} rows: {format_estimate(metric, point.estimate, confidence)}"
        for point in points
    )
    yield f"{metric.title.capitalize()} after learning from {said}."
    limits = format_interval(metric, gain.low, gain.high)
    yield (
        f"From {points[-2].num_rows:,} to {points[-1].num_rows:,} rows it changed by "
        f"{format_difference(metric, gain.difference)} ({100 * confidence:g} % interval {limits})."
    )
    if doubled is None:
        yield "What more rows would bring cannot be said from fewer than three sizes."
        return
    now = points[-1].estimate.value or 0.0
    expected = format_difference(metric, doubled.value - now)
    yield (
        f"If it goes on like this, {2 * points[-1].num_rows:,} rows bring it to about "
        f"{format_value(metric, doubled.value)} ({expected}; {100 * confidence:g} % interval "
        f"{format_interval(metric, doubled.low, doubled.high)}, the chance of another training "
        "not counted)."
    )


def _facts(curve: LearningCurve) -> dict[str, object]:
    return {
        "metric": asdict(curve.metric),
        "points": [asdict(point) for point in curve.points],
        "held_out_rows": curve.num_test,
        "last_gain": asdict(curve.last_gain),
        "doubled": curve.doubled and asdict(curve.doubled),
        "words": curve.words,
    }
