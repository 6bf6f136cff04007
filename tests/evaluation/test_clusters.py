"""Rows in groups: against statsmodels, by simulation, and where nothing varies."""

from dataclasses import replace

import numpy as np
import pytest
import statsmodels.api as sm
from evaluation_fakes import ScriptedPredictor, make_chat, make_evaluation
from hypothesis import given
from hypothesis import strategies as st

from luthier.data import Example
from luthier.errors import EvaluationError
from luthier.evaluation import EvaluationResult, build_scorers, conclude, run_system
from luthier.evaluation.clusters import (
    clustered,
    clustered_mean,
    clustered_rate,
    clustered_test,
)
from luthier.evaluation.statistics import mean_interval, wilson
from luthier.evaluation.wholes import resampled

ROWS = st.lists(st.tuples(st.floats(-5, 5), st.sampled_from("abcd")), min_size=1, max_size=30)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def alike(
    num_groups: int, rate: float, draws: np.random.Generator
) -> tuple[list[float], list[str]]:
    """Rows that pass or fail, 1 to 9 a group, correlated by 0.3 in a group (beta-binomial)."""
    strength = (1 - 0.3) / 0.3
    values: list[float] = []
    groups: list[str] = []
    for group in range(num_groups):
        own = draws.beta(rate * strength, (1 - rate) * strength)
        count = int(draws.integers(1, 10))
        values += [float(x) for x in draws.random(count) < own]
        groups += [str(group)] * count
    return values, groups


def test_the_standard_error_is_statsmodels_clustered_one() -> None:
    values = rng(1).normal(2, 1, 60)
    groups = rng(2).integers(0, 13, 60)
    found = clustered(list(values), [str(g) for g in groups])
    fitted = sm.OLS(values, np.ones(60)).fit(
        cov_type="cluster", cov_kwds={"groups": groups}, use_t=True
    )
    assert found.mean == pytest.approx(fitted.params[0])
    assert found.standard_error == pytest.approx(fitted.bse[0])
    low, high = fitted.conf_int(0.05)[0]
    interval = clustered_mean(found, 0.95)
    assert (interval.low, interval.high) == pytest.approx((low, high))
    assert interval.method == "clustered t, 13 groups"


def test_groups_of_one_row_are_rows() -> None:
    values = list(rng(3).normal(0, 1, 150))
    own = [str(i) for i in range(150)]
    plain = mean_interval(values, 0.95, 100, rng())
    interval = clustered_mean(clustered(values, own), 0.95)
    assert (interval.low, interval.high) == pytest.approx((plain.low, plain.high))
    passed = [float(v > 0) for v in values]
    rate = clustered_rate(clustered(passed, own), 0.95)
    expected = wilson(int(sum(passed)), 150, 0.95)
    assert (rate.low, rate.high) == pytest.approx((expected.low, expected.high), abs=2e-3)


def test_copies_of_rows_add_nothing() -> None:
    values, groups = [1.0, 0.0, 1.0, 1.0, 0.0], list("abcde")
    once = clustered(values, groups)
    twice = clustered(values * 2, groups * 2)
    assert once.standard_error == pytest.approx(twice.standard_error)
    first = clustered_test([1.0, 2.0, -0.5, 3.0, 1.0], groups, 1000, rng())
    second = clustered_test([1.0, 2.0, -0.5, 3.0, 1.0] * 2, groups * 2, 1000, rng())
    assert first.p_value == second.p_value


@pytest.mark.parametrize("rate", [0.8, 0.95])
@pytest.mark.parametrize("num_groups", [10, 20, 40])
def test_intervals_of_rates_cover_close_to_their_level(rate: float, num_groups: int) -> None:
    draws, covered = rng(4), 0
    for _ in range(400):
        interval = clustered_rate(clustered(*alike(num_groups, rate, draws)), 0.95)
        assert interval.low is not None
        assert interval.high is not None
        covered += interval.low <= rate <= interval.high
    assert 0.9 <= covered / 400 <= 0.995


@pytest.mark.parametrize("num_groups", [12, 120])
def test_without_a_difference_few_tests_find_one(num_groups: int) -> None:
    draws, found = rng(5), 0
    for _ in range(300):
        first, groups = alike(num_groups, 0.7, draws)
        flips = draws.integers(0, 2, num_groups) * 2 - 1  # whole groups one way or the other
        differences = [x * flips[int(g)] for x, g in zip(first, groups, strict=True)]
        found += clustered_test(differences, groups, 400, draws).p_value < 0.05
    assert found / 300 <= 0.085


def test_all_right_is_not_certain() -> None:
    interval = clustered_rate(clustered([1.0] * 40, [str(i % 8) for i in range(40)]), 0.95)
    independent = wilson(40, 40, 0.95)
    assert interval.high == 1
    assert interval.low is not None
    assert independent.low is not None
    assert interval.low < independent.low


def test_one_group_has_no_interval() -> None:
    found = clustered([1.0, 0.0], ["a", "a"])
    assert clustered_rate(found, 0.95).low is None
    assert clustered_mean(found, 0.95).high is None


@given(ROWS)
def test_any_numbers_give_finite_results(rows: list[tuple[float, str]]) -> None:
    values, groups = [v for v, _ in rows], [g for _, g in rows]
    found = clustered(values, groups)
    interval = clustered_mean(found, 0.95)
    assert (interval.low is None) == (len(set(groups)) < 2)
    if interval.low is not None and interval.high is not None:
        assert np.isfinite([interval.low, interval.high]).all()
    assert 0 <= clustered_test(values, groups, 50, rng()).p_value <= 1
    passed = clustered_rate(clustered([float(v > 0) for v in values], groups), 0.95)
    if passed.low is not None and passed.high is not None:
        assert 0 <= passed.low <= passed.high <= 1


def in_groups(size: int) -> list[Example]:
    """40 rows, so many of each document."""
    return [
        replace(make_chat(f"row-{i}", "yes"), slices={"document": str(i // size)})
        for i in range(40)
    ]


def judged(size: int, column: str = "document") -> EvaluationResult:
    """A better and a worse system; all rows of ten are alike."""
    examples, settings = in_groups(size), make_evaluation("exact", group=column)
    systems = []
    for name, kind, right in (("a", "candidate", {0, 1, 2}), ("b", "rival", {0})):
        predictor = ScriptedPredictor(name)
        for i in range(40):
            predictor.enqueue("yes" if i // 10 in right else "no")
        systems.append(run_system(predictor, kind, examples, build_scorers(settings), settings))  # type: ignore[arg-type]
    return conclude(examples, systems, build_scorers(settings), settings)


def test_rows_that_repeat_each_other_decide_nothing() -> None:
    alone, together = judged(1), judged(10)
    assert alone.verdict is not None
    assert together.verdict is not None
    assert (alone.verdict.decision, together.verdict.decision) == ("better", "cannot tell")
    assert together.verdict.comparison.num_groups == 4
    assert "The rows come in 4 groups; with fewer than 40" in together.verdict.paragraph
    assert "test are rough" not in alone.verdict.paragraph
    first, second = (r.systems[0].estimates["exact"] for r in (alone, together))
    assert first.value == second.value == 0.75
    assert second.method == "clustered Wilson, 4 groups"
    assert second.low is not None
    assert first.low is not None
    assert second.low < first.low


def test_without_a_changed_row_a_difference_is_still_possible() -> None:
    examples, settings = in_groups(4), make_evaluation("exact", group="document")
    systems = []
    for name, kind in (("a", "candidate"), ("b", "rival")):
        predictor = ScriptedPredictor(name)
        for _ in examples:
            predictor.enqueue("yes")
        systems.append(run_system(predictor, kind, examples, build_scorers(settings), settings))  # type: ignore[arg-type]
    result = conclude(examples, systems, build_scorers(settings), settings)
    (comparison,) = result.comparisons
    assert comparison.low == pytest.approx(-0.27753, abs=1e-5)  # Tango's, of 10 groups
    assert comparison.p_value == 1


def test_a_column_that_is_not_there_is_said_before_anything_is_asked() -> None:
    predictor = ScriptedPredictor("a")
    settings = make_evaluation("exact", group="author")
    with pytest.raises(EvaluationError, match=r"test.jsonl:1: has no column author.*document"):
        run_system(predictor, "rival", in_groups(4), build_scorers(settings), settings)
    assert predictor.num_asked == 0


def test_rows_of_a_unit_are_drawn_together() -> None:
    units = np.array([0, 0, 0, 1, 2, 2])
    weights = np.concatenate([*resampled(units, 500, rng())])
    assert (weights[:, 0] == weights[:, 1]).all()
    assert (weights[:, 1] == weights[:, 2]).all()
    assert (weights[:, 4] == weights[:, 5]).all()
    assert (weights[:, 0] + weights[:, 3] + weights[:, 4] == 3).all()
    assert weights[:, 0].mean() == pytest.approx(1, abs=0.15)
