"""Estimates and paired comparisons."""

import math

import pytest
from evaluation_fakes import CHRF, EXACT, FIELDS, LOSS, SETTINGS, make_system, passes
from hypothesis import given, settings
from hypothesis import strategies as st

from luthier.evaluation import Comparison, Metric, Prediction, compare, estimate
from luthier.evaluation.comparing import perplexity
from luthier.evaluation.statistics import mcnemar, tango, wilson

Scores = list[float | None]


def compared(metric: Metric, before: Scores, after: Scores, seed: int = 0) -> Comparison:
    comparison = compare(
        metric,
        make_system("before", "zero_shot", {metric: before}),
        make_system("after", "tuned", {metric: after}),
        SETTINGS,
        seed=seed,
    )
    assert comparison is not None
    return comparison


def test_a_pass_rate_gets_wilsons_interval() -> None:
    result = estimate(EXACT, passes(15, 148), SETTINGS, seed=0)
    expected = wilson(15, 148, 0.95)
    assert result.value == pytest.approx(15 / 148)
    assert (result.low, result.high, result.n) == (expected.low, expected.high, 148)
    assert result.method == "Wilson"


def test_rows_without_a_score_do_not_count() -> None:
    result = estimate(EXACT, [1.0, None, 0.0, None], SETTINGS, seed=0)
    assert (result.value, result.n) == (0.5, 2)


@pytest.mark.parametrize("metric", [EXACT, LOSS])
def test_no_scores_give_no_number(metric: Metric) -> None:
    result = estimate(metric, [None, None], SETTINGS, seed=0)
    assert (result.value, result.low, result.high, result.n) == (None, None, None, 0)
    assert result.method == "no scored rows"


def test_an_interval_stays_within_the_metrics_range() -> None:
    result = estimate(FIELDS, [1.0] * 119 + [0.5], SETTINGS, seed=0)
    assert result.method == "Student's t"
    assert result.high == 1


def test_one_number_has_a_value_and_no_interval() -> None:
    result = estimate(LOSS, [0.7], SETTINGS, seed=0)
    assert (result.value, result.low, result.high, result.n) == (0.7, None, None, 1)


def test_pass_and_fail_are_compared_by_mcnemar_and_tango() -> None:
    result = compared(EXACT, [0, 0, 1, 1, 0, 0], [1, 1, 1, 0, 1, 0])
    interval = tango(3, 1, 6, 0.95)
    assert (result.baseline_value, result.candidate_value) == pytest.approx((2 / 6, 4 / 6))
    assert result.difference == pytest.approx(2 / 6)
    assert (result.low, result.high) == (interval.low, interval.high)
    assert (result.p_value, result.test) == (mcnemar(3, 1).p_value, "McNemar exact")
    assert result.fixed == ("row-0", "row-1", "row-4")
    assert result.broken == ("row-3",)
    assert (result.baseline, result.candidate, result.n) == ("before", "after", 6)


def test_a_pass_that_is_bad_fixes_rows_when_it_stops() -> None:
    refused = Metric("refused", "refusals", "pass_fail", False, "share")
    result = compared(refused, [1, 1, 0, 0], [0, 0, 0, 1])
    assert result.difference == -0.25
    assert result.fixed == ("row-0", "row-1")
    assert result.broken == ("row-3",)


@pytest.mark.parametrize(
    ("metric", "before", "after", "fixed", "broken"),
    [
        (CHRF, [50, 50, 50, 50], [56, 54, 44, 50], ("row-0",), ("row-2",)),
        (FIELDS, [0.5, 0.5, 0.5, 0.5], [0.6, 0.52, 0.4, 0.5], ("row-0",), ("row-2",)),
        (LOSS, [1.0, 1.0, 1.0, 1.0], [0.8, 0.95, 1.2, 1.0], ("row-0",), ("row-2",)),
    ],
)
def test_numbers_changed_clearly_only_beyond_the_margin(
    metric: Metric, before: Scores, after: Scores, fixed: tuple[str], broken: tuple[str]
) -> None:
    result = compared(metric, before, after)
    assert (result.fixed, result.broken) == (fixed, broken)
    assert result.test == "sign-flip permutation"
    assert result.interval_method == "BCa bootstrap"


def test_rows_without_a_score_under_either_system_are_left_out() -> None:
    result = compared(EXACT, [None, 0, 1, 0], [1, 1, None, 0])
    assert (result.n, result.baseline_value, result.candidate_value) == (2, 0, 0.5)
    assert result.fixed == ("row-1",)


def test_without_a_common_row_there_is_no_comparison() -> None:
    before = make_system("before", "zero_shot", {LOSS: [None, 1.0]})
    after = make_system("after", "tuned", {LOSS: [1.0, None]})
    assert compare(LOSS, before, after, SETTINGS, seed=0) is None


def test_the_same_answers_twice_show_no_difference() -> None:
    for metric in (EXACT, LOSS):
        result = compared(metric, [1, 0, 1], [1, 0, 1])
        assert (result.difference, result.p_value) == (0, 1)
        assert result.fixed == result.broken == ()


def test_the_seed_decides_the_comparison() -> None:
    before: Scores = [0.1 * index for index in range(30)]
    after: Scores = [0.1 * index + (index % 7) / 20 for index in range(30)]
    assert compared(LOSS, before, after) == compared(LOSS, before, after)
    assert compared(LOSS, before, after).low != compared(LOSS, before, after, seed=1).low


@given(
    st.lists(st.tuples(st.sampled_from([None, 0, 1]), st.sampled_from([None, 0, 1])), max_size=20),
    st.sampled_from([EXACT, FIELDS]),
)
@settings(max_examples=60, deadline=None)
def test_any_scores_give_a_consistent_comparison(
    rows: list[tuple[float | None, float | None]], metric: Metric
) -> None:
    before = make_system("before", "zero_shot", {metric: [row[0] for row in rows]})
    after = make_system("after", "tuned", {metric: [row[1] for row in rows]})
    result = compare(metric, before, after, SETTINGS, seed=0)
    num_pairs = sum(None not in row for row in rows)
    assert (result is None) == (num_pairs == 0)
    if result is not None:
        assert result.n == num_pairs
        assert not set(result.fixed) & set(result.broken)
        assert 0 <= result.p_value <= 1
        difference = (len(result.fixed) - len(result.broken)) / num_pairs
        assert result.difference == pytest.approx(difference)
        if result.low is not None and result.high is not None:
            assert result.low - 1e-9 <= result.difference <= result.high + 1e-9


def test_perplexity_counts_every_token_once() -> None:
    predictions = [
        Prediction("a", "", True, 1, target_loss=1.0, target_tokens=3),
        Prediction("b", "", True, 1, target_loss=3.0, target_tokens=1),
        Prediction("c", "", True, 1),
    ]
    assert perplexity(predictions) == pytest.approx(math.exp((3 * 1.0 + 3.0) / 4))


@pytest.mark.parametrize("loss", [None, 1e4])
def test_without_a_loss_that_is_a_number_there_is_no_perplexity(loss: float | None) -> None:
    assert perplexity([Prediction("a", "", True, 1, target_loss=loss, target_tokens=3)]) is None
