"""Running systems and concluding: order, errors, and the whole way with a scripted predictor."""

from collections.abc import Iterator, Sequence

import pytest
from evaluation_fakes import (
    CHRF,
    EXACT,
    FIELDS,
    LOSS,
    SETTINGS,
    ScriptedPredictor,
    make_chat,
    make_evaluation,
    make_system,
    passes,
)

from luthier.data import Example
from luthier.errors import ConfigError, EvaluationError
from luthier.evaluation import (
    Kind,
    Metric,
    Prediction,
    Scorer,
    SystemFinished,
    SystemResult,
    SystemStarted,
    build_scorers,
    conclude,
    evaluate,
    run_system,
)

EXAMPLES = [make_chat(f"row-{index}", f"answer {index}") for index in range(12)]
SCORERS = build_scorers(SETTINGS)


def scripted(name: str, num_right: int, *, loss: float | None = 0.5) -> ScriptedPredictor:
    predictor = ScriptedPredictor(name)
    for index in range(len(EXAMPLES)):
        predictor.enqueue(f"answer {index}" if index < num_right else "wrong", loss=loss)
    return predictor


def judges(*metrics: Metric) -> list[Scorer]:
    names = [metric.name for metric in metrics]
    return list(build_scorers(make_evaluation(*names)))


def ticking() -> Iterator[float]:
    now = 0.0
    while True:
        yield now
        now += 2.5


def finished(name: str = "4 examples", kind: Kind = "few_shot", num_right: int = 3) -> SystemResult:
    scores = {EXACT: passes(num_right, 12), LOSS: [0.5 - num_right / 100] * 12}
    return make_system(name, kind, scores)


def test_baselines_and_the_tuned_model_give_a_verdict() -> None:
    result = evaluate(
        [
            (scripted("no examples", 0), "zero_shot"),
            (scripted("4 examples", 1), "few_shot"),
            (scripted("tuned", 11, loss=0.1), "tuned"),
        ],
        EXAMPLES,
        SCORERS,
        SETTINGS,
    )
    assert result.verdict is not None
    assert result.verdict.decision == "better"
    assert result.verdict.comparison is result.comparisons[0]
    assert result.comparisons[0].baseline == "4 examples"
    assert len(result.comparisons[0].fixed) == 10
    assert [comparison.metric for comparison in result.comparisons] == ["exact", "loss"]
    assert [system.name for system in result.systems] == ["no examples", "4 examples", "tuned"]
    assert result.primary == "exact"
    assert result.examples == tuple(EXAMPLES)


def test_a_run_keeps_scores_in_the_order_of_rows_and_times_the_prediction() -> None:
    events: list[SystemStarted | SystemFinished] = []
    clock = ticking()
    result = run_system(
        scripted("base", 2),
        "zero_shot",
        EXAMPLES,
        SCORERS,
        SETTINGS,
        observe=events.append,
        clock=lambda: next(clock),
    )
    assert result.scores["exact"] == (1, 1, *[0] * 10)
    assert result.scores["loss"] == (0.5,) * 12
    assert result.estimates["exact"].value == pytest.approx(2 / 12)
    assert result.seconds == 2.5
    assert events[0] == SystemStarted("base", 12)
    assert events[1] == SystemFinished("base", 2.5, result.estimates)


def test_a_predictor_without_losses_has_no_loss_and_no_comparison_of_it() -> None:
    result = evaluate(
        [(scripted("base", 0, loss=None), "zero_shot"), (scripted("tuned", 12), "tuned")],
        EXAMPLES,
        SCORERS,
        SETTINGS,
    )
    assert result.systems[0].estimates["loss"].value is None
    assert [comparison.metric for comparison in result.comparisons] == ["exact"]


@pytest.mark.parametrize("kinds", [["zero_shot"], ["tuned"], ["other", "tuned"]])
def test_without_both_a_prompt_and_a_tuned_model_there_is_no_verdict(kinds: list[Kind]) -> None:
    systems = [finished(name=kind, kind=kind) for kind in kinds]
    result = conclude(EXAMPLES, systems, judges(EXACT, LOSS), SETTINGS)
    assert result.verdict is None
    assert result.comparisons == ()


def test_secondary_claims_are_adjusted_and_the_verdict_is_not() -> None:
    before = {EXACT: passes(3, 12), FIELDS: [0.4] * 12, CHRF: [40.0] * 12, LOSS: [1.0] * 12}
    after = {
        EXACT: passes(9, 12),
        FIELDS: [0.4 + 0.01 * index for index in range(12)],
        CHRF: [40.0 + (-1) ** index for index in range(12)],
        LOSS: [0.9 + 0.02 * index for index in range(12)],
    }
    systems = [make_system("base", "zero_shot", before), make_system("tuned", "tuned", after)]
    result = conclude(EXAMPLES, systems, judges(EXACT, FIELDS, CHRF, LOSS), SETTINGS)
    first, *others = result.comparisons
    assert first.adjusted_p_value is None
    smallest = min(others, key=lambda comparison: comparison.p_value)
    assert smallest.adjusted_p_value == pytest.approx(3 * smallest.p_value)
    for other in others:
        assert other.adjusted_p_value is not None
        assert other.adjusted_p_value >= other.p_value


def test_evaluating_at_once_equals_evaluating_in_parts() -> None:
    def predictors() -> tuple[ScriptedPredictor, ScriptedPredictor]:
        return scripted("base", 2), scripted("tuned", 9)

    base, tuned = predictors()
    at_once = evaluate(
        [(base, "zero_shot"), (tuned, "tuned")], EXAMPLES, SCORERS, SETTINGS, clock=lambda: 0.0
    )
    base, tuned = predictors()
    systems = [
        run_system(base, "zero_shot", EXAMPLES, SCORERS, SETTINGS, clock=lambda: 0.0),
        run_system(tuned, "tuned", EXAMPLES, SCORERS, SETTINGS, clock=lambda: 0.0),
    ]
    assert conclude(EXAMPLES, systems, judges(EXACT, LOSS), SETTINGS) == at_once


class Misordered(ScriptedPredictor):
    """Answers the right rows, the last one first."""

    def predict(self, examples: Sequence[Example]) -> list[Prediction]:
        return super().predict(examples)[::-1]


class Forgetful(ScriptedPredictor):
    """Leaves out the last row."""

    def predict(self, examples: Sequence[Example]) -> list[Prediction]:
        return super().predict(examples[:-1])


@pytest.mark.parametrize("kind", [Misordered, Forgetful])
def test_answers_that_do_not_match_the_rows_are_refused(kind: type[ScriptedPredictor]) -> None:
    predictor = kind("careless")
    for _ in EXAMPLES:
        predictor.enqueue("x")
    with pytest.raises(EvaluationError, match=r"careless: 1[12] answers do not match 12"):
        run_system(predictor, "baseline", EXAMPLES, SCORERS, SETTINGS)


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_is_refused(loss: float) -> None:
    predictor = scripted("broken", 0, loss=loss)
    with pytest.raises(EvaluationError, match="broken, row row-0: the loss"):
        run_system(predictor, "tuned", EXAMPLES, SCORERS, SETTINGS)


def test_no_rows_are_refused() -> None:
    with pytest.raises(EvaluationError, match="there is no held-out row"):
        run_system(scripted("base", 0), "zero_shot", [], SCORERS, SETTINGS)


def test_equal_ids_are_refused() -> None:
    with pytest.raises(EvaluationError, match="same id"):
        run_system(scripted("base", 0), "zero_shot", EXAMPLES[:1] * 2, SCORERS, SETTINGS)


@pytest.mark.parametrize("metric", ["json", "fields"])
def test_a_metric_that_fits_no_row_is_refused_before_anything_is_asked(metric: str) -> None:
    settings = make_evaluation("exact", metric)
    predictor = scripted("base", 0)
    with pytest.raises(ConfigError, match=f"{metric} cannot judge any of the 12"):
        run_system(predictor, "zero_shot", EXAMPLES, build_scorers(settings), settings)
    assert predictor.num_asked == 0


def test_rows_that_call_tools_are_judged_by_loss_alone() -> None:
    examples = [make_chat("row-0", "", calls_tool=True)]
    settings = make_evaluation("loss")
    predictor = ScriptedPredictor("base")
    predictor.enqueue("anything", loss=1.5)
    result = run_system(predictor, "zero_shot", examples, build_scorers(settings), settings)
    assert result.estimates["loss"].value == 1.5


def test_a_result_on_other_rows_is_refused() -> None:
    other = [make_chat(f"row-{index + 1}", "x") for index in range(12)]
    with pytest.raises(EvaluationError, match="4 examples: 12 answers do not match") as caught:
        conclude(other, [finished()], judges(EXACT, LOSS), SETTINGS)
    assert caught.value.details[0] == "row 1: asked row-1, answered row-0"
    assert len(caught.value.details) == 5


def test_a_result_without_a_metric_is_refused() -> None:
    with pytest.raises(EvaluationError, match="no complete scores for chrf"):
        conclude(EXAMPLES, [finished()], judges(EXACT, LOSS, CHRF), SETTINGS)


def test_two_systems_of_one_name_are_refused() -> None:
    with pytest.raises(EvaluationError, match="two systems have the same name"):
        conclude(EXAMPLES, [finished(), finished()], judges(EXACT, LOSS), SETTINGS)


def test_the_test_rows_judge_one_checkpoint_only() -> None:
    systems = [finished("a", "tuned"), finished("b", "tuned")]
    with pytest.raises(EvaluationError, match="more than one tuned"):
        conclude(EXAMPLES, systems, judges(EXACT, LOSS), SETTINGS)


def test_a_primary_metric_that_was_not_computed_is_refused() -> None:
    with pytest.raises(EvaluationError, match="primary metric exact was not computed"):
        conclude(EXAMPLES, [finished()], judges(LOSS), SETTINGS)


@pytest.mark.parametrize("unscored", ["4 examples", "tuned"])
def test_a_primary_metric_that_one_side_has_no_score_of_is_refused(unscored: str) -> None:
    systems = [finished(), finished("tuned", "tuned")]
    none: dict[Metric, Sequence[float | None]] = {EXACT: [None] * 12, LOSS: [1.0] * 12}
    systems = [make_system(s.name, s.kind, none) if s.name == unscored else s for s in systems]
    with pytest.raises(EvaluationError, match="no row has a score for exact under both"):
        conclude(EXAMPLES, systems, judges(EXACT, LOSS), SETTINGS)
