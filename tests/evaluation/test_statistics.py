"""Intervals and tests against scipy, statsmodels, published tables and exact enumeration."""

from itertools import product
from math import log, sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.optimize import minimize_scalar
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from luthier.evaluation.statistics import (
    holm,
    mcnemar,
    mean_interval,
    mean_test,
    tango,
    wilson,
)

CHANGES = st.integers(1, 60).flatmap(
    lambda n: st.tuples(st.integers(0, n), st.just(n)).flatmap(
        lambda pair: st.tuples(st.just(pair[0]), st.integers(0, n - pair[0]), st.just(n))
    )
)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def limits(up: int, down: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    interval = tango(up, down, n, confidence)
    assert interval.low is not None
    assert interval.high is not None
    return interval.low, interval.high


@pytest.mark.parametrize(("passed", "n"), [(0, 1), (0, 10), (5, 10), (15, 148), (150, 150)])
@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_wilson_agrees_with_statsmodels(passed: int, n: int, confidence: float) -> None:
    interval = wilson(passed, n, confidence)
    expected = proportion_confint(passed, n, alpha=1 - confidence, method="wilson")
    assert (interval.low, interval.high) == pytest.approx(expected, abs=1e-12)


def test_wilson_agrees_with_newcombes_published_example() -> None:
    # Newcombe 1998, Statistics in Medicine 17:857, table I, method 3: 15 of 148.
    interval = wilson(15, 148, 0.95)
    assert (interval.low, interval.high) == pytest.approx((0.0624, 0.1605), abs=5e-5)


@pytest.mark.parametrize(
    ("p", "n", "expected"),
    [(0.8, 10, 0.967), (0.8, 100, 0.941), (0.95, 10, 0.914), (0.95, 30, 0.939)],
)
def test_wilson_covers_as_exact_enumeration_says(p: float, n: int, expected: float) -> None:
    covered = 0.0
    for passed in range(n + 1):
        interval = wilson(passed, n, 0.95)
        assert interval.low is not None
        assert interval.high is not None
        if interval.low <= p <= interval.high:
            covered += float(stats.binom.pmf(passed, n, p))
    assert covered == pytest.approx(expected, abs=6e-4)


@pytest.mark.parametrize(("up", "down"), list(product((0, 1, 5, 12), repeat=2)))
def test_few_changed_pairs_get_the_exact_test_of_statsmodels(up: int, down: int) -> None:
    result = mcnemar(up, down)
    expected = statsmodels_mcnemar([[3, up], [down, 4]], exact=True).pvalue if up + down else 1.0
    assert result.test == "McNemar exact"
    assert result.p_value == pytest.approx(min(expected, 1.0))


@pytest.mark.parametrize(("up", "down"), [(25, 0), (20, 8), (8, 20), (106, 0), (60, 41)])
def test_many_changed_pairs_get_the_mid_p(up: int, down: int) -> None:
    # statsmodels has no mid-p; it is the exact p less the probability of the observed count.
    exact = statsmodels_mcnemar([[3, up], [down, 4]], exact=True).pvalue
    result = mcnemar(up, down)
    assert result.test == "McNemar mid-p"
    assert result.p_value == pytest.approx(exact - stats.binom.pmf(min(up, down), up + down, 0.5))


def test_mcnemar_agrees_with_published_examples() -> None:
    # Fagerland, Lydersen and Laake 2013, airway reactivity: 7 against 1, exact p 0.070.
    assert mcnemar(7, 1).p_value == pytest.approx(0.0703, abs=5e-5)
    assert mcnemar(13, 13).p_value == pytest.approx(1.0)


@pytest.mark.parametrize(("up", "down"), [(0, 0), (3, 9), (30, 12)])
def test_mcnemar_does_not_care_for_direction(up: int, down: int) -> None:
    assert mcnemar(up, down) == mcnemar(down, up)


def test_tango_agrees_with_published_examples() -> None:
    # Tango 1998, section 6.1: soft contact lenses, 44 pairs, one changed; 90 % lower limit.
    assert limits(0, 1, 44, 0.90)[0] == pytest.approx(-0.096, abs=5e-4)
    # Fagerland, Lydersen and Laake 2014: airway reactivity, 7 against 1 of 21 pairs.
    assert limits(1, 7, 21) == pytest.approx((-0.517, -0.026), abs=5e-4)


@pytest.mark.parametrize(("up", "down", "n"), [(7, 1, 21), (40, 20, 160), (3, 0, 9), (0, 0, 12)])
def test_tango_limits_are_where_the_score_statistic_is_the_quantile(
    up: int, down: int, n: int
) -> None:
    # Independent of the closed form: maximise the trinomial likelihood under each difference.
    def statistic(difference: float) -> float:
        def surprise(p_down: float) -> float:
            cells = (p_down + difference, p_down, 1 - 2 * p_down - difference)
            counts = (up, down, n - up - down)
            return -sum(k * log(p) for k, p in zip(counts, cells, strict=True) if k)

        bounds = (max(0.0, -difference), (1 - difference) / 2)
        fit = minimize_scalar(surprise, bounds=bounds, method="bounded", options={"xatol": 1e-12})
        variance = n * (2 * fit.x + difference - difference**2)
        return float((up - down - n * difference) / sqrt(variance))

    low, high = limits(up, down, n)
    assert statistic(low) == pytest.approx(1.959964, abs=2e-3)
    assert statistic(high) == pytest.approx(-1.959964, abs=2e-3)


@given(CHANGES)
@settings(max_examples=200, deadline=None)
def test_tango_holds_the_observed_difference_and_mirrors(changes: tuple[int, int, int]) -> None:
    up, down, n = changes
    low, high = limits(up, down, n)
    assert -1 <= low <= (up - down) / n <= high <= 1
    assert low < high
    mirrored = limits(down, up, n)
    assert mirrored == pytest.approx((-high, -low), abs=1e-9)


def test_tango_excludes_zero_exactly_when_mcnemars_statistic_is_significant() -> None:
    n = 40
    for up, down in product(range(n + 1), repeat=2):
        if 0 < up + down <= n:
            low, high = limits(up, down, n)
            significant = abs(up - down) / sqrt(up + down) > 1.959964
            assert (low > 0 or high < 0) == significant


@pytest.mark.parametrize(
    ("p_up", "p_down", "n"), [(0.1, 0.1, 30), (0.3, 0.05, 30), (0.7, 0.0, 20), (0.02, 0.0, 40)]
)
def test_tango_covers_close_to_its_level_by_enumeration(p_up: float, p_down: float, n: int) -> None:
    covered = 0.0
    for up in range(n + 1):
        for down in range(n + 1 - up):
            counts = [up, down, n - up - down]
            chance = stats.multinomial.pmf(counts, n, [p_up, p_down, 1 - p_up - p_down])
            if chance > 1e-9:
                low, high = limits(up, down, n)
                covered += float(chance) * (low <= p_up - p_down <= high)
    assert 0.92 <= covered <= 1


def test_no_rows_have_no_interval() -> None:
    for interval in (wilson(0, 0, 0.95), tango(0, 0, 0, 0.95), mean_interval([], 0.95, 100, rng())):
        assert interval.low is interval.high is None


def test_one_row_and_no_changed_pair_are_well_defined() -> None:
    assert limits(1, 0, 1) == pytest.approx((-0.5869, 1), abs=1e-4)
    # Without a changed pair Tango's limits are z^2 / (n + z^2).
    assert limits(0, 0, 10) == pytest.approx((-0.27753, 0.27753), abs=1e-5)
    assert limits(10, 0, 10)[1] == 1
    assert mean_interval([3.0], 0.95, 100, rng()).low is None
    assert mean_test([3.0], 100, rng()).p_value == 1


def test_equal_rows_have_an_interval_without_width() -> None:
    interval = mean_interval([0.3] * 7, 0.95, 100, rng())
    assert interval.low == interval.high == 0.3
    assert mean_test([0.0] * 7, 100, rng()).p_value == 1
    assert mean_test([], 100, rng()).p_value == 1
    assert mean_test([0.3] * 7, 100, rng()).p_value == 2**-6
    assert mean_test([0.3] * 2000, 100, rng()).p_value == 0


def test_from_a_hundred_rows_on_students_t_is_used() -> None:
    differences = rng(1).normal(0.1, 1, 100)
    interval = mean_interval(list(differences), 0.95, 100, rng())
    reference = stats.ttest_rel(differences + 5, np.full(100, 5.0))
    expected = reference.confidence_interval(0.95)
    assert interval.method == "Student's t"
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high))
    result = mean_test(list(differences), 100, rng())
    assert result.test == "paired t"
    assert result.p_value == pytest.approx(reference.pvalue)


def test_below_a_hundred_rows_the_bootstrap_is_scipys_bca() -> None:
    differences = rng(2).normal(0.2, 1, 99)
    interval = mean_interval(list(differences), 0.9, 2000, rng(5))
    scale = np.abs(differences).max()
    expected = stats.bootstrap(
        (differences / scale,), np.mean, confidence_level=0.9, n_resamples=2000, rng=rng(5)
    ).confidence_interval
    assert interval.method == "BCa bootstrap"
    assert (interval.low, interval.high) == (expected.low * scale, expected.high * scale)


def test_the_sign_flip_p_of_few_rows_is_exact() -> None:
    differences = [3.0, 1.0, 2.0, -0.5, 4.0]
    patterns = [
        abs(sum(sign * value for sign, value in zip(signs, differences, strict=True)))
        for signs in product((-1, 1), repeat=5)
    ]
    observed = abs(sum(differences))
    expected = sum(pattern >= observed - 1e-9 for pattern in patterns) / len(patterns)
    assert mean_test(differences, 100, rng()).p_value == pytest.approx(expected)


def test_the_sign_flip_p_of_many_rows_agrees_with_the_t_test() -> None:
    differences = list(rng(3).normal(0.25, 1, 60))
    result = mean_test(differences, 5000, rng())
    assert result.test == "sign-flip permutation"
    assert result.p_value == pytest.approx(stats.ttest_1samp(differences, 0).pvalue, abs=0.015)


def test_the_seed_decides_bootstrap_and_permutation() -> None:
    values = list(rng(4).normal(0.2, 1, 40))
    assert mean_interval(values, 0.95, 500, rng(7)) == mean_interval(values, 0.95, 500, rng(7))
    assert mean_interval(values, 0.95, 500, rng(7)) != mean_interval(values, 0.95, 500, rng(8))
    assert mean_test(values, 500, rng(7)) == mean_test(values, 500, rng(7))
    assert mean_test(values, 500, rng(7)) != mean_test(values, 500, rng(8))


def test_the_bootstrap_covers_close_to_its_level() -> None:
    draws = rng(6)
    covered = 0
    for _ in range(400):
        interval = mean_interval(list(draws.exponential(1.0, 40)), 0.95, 400, draws)
        assert interval.low is not None
        assert interval.high is not None
        covered += interval.low <= 1.0 <= interval.high
    assert 0.91 <= covered / 400 <= 0.98


@given(st.lists(st.floats(-1e6, 1e6, allow_subnormal=False), max_size=30))
@settings(max_examples=80, deadline=None)
def test_any_numbers_give_finite_results_without_warnings(values: list[float]) -> None:
    interval = mean_interval(values, 0.95, 200, rng())
    result = mean_test(values, 200, rng())
    assert 0 <= result.p_value <= 1
    assert (interval.low is None) == (interval.high is None) == (len(values) < 2)
    if interval.low is not None and interval.high is not None:
        slack = 1e-12 * max(map(abs, values))
        assert min(values) - slack <= interval.low <= interval.high <= max(values) + slack


@pytest.mark.parametrize(
    "p_values", [[0.04], [0.04, 0.01, 0.03], [0.9, 0.8, 0.001, 0.8], [0.0, 1.0], [0.02, 0.02, 0.02]]
)
def test_holm_agrees_with_statsmodels(p_values: list[float]) -> None:
    assert holm(p_values) == pytest.approx(list(multipletests(p_values, method="holm")[1]))


def test_no_claims_need_no_adjustment() -> None:
    assert holm([]) == []
