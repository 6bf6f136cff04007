"""What a test set can show, against enumeration, statsmodels and published sizes."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.power import TTestPower

from luthier.evaluation.power import (
    POWER,
    detectable_at,
    detectable_mean_difference,
    detectable_rate_difference,
    rate_power,
    rows_for_mean_difference,
    rows_for_rate_difference,
)
from luthier.evaluation.statistics import mcnemar


@pytest.mark.parametrize(
    ("difference", "against", "n"), [(0.3, 0.1, 12), (0.5, 0.0, 8), (0.4, 0.05, 45)]
)
def test_rate_power_is_the_chance_that_mcnemars_test_rejects(
    difference: float, against: float, n: int
) -> None:
    shares = [against + difference, against, 1 - 2 * against - difference]
    rejected = sum(
        stats.multinomial.pmf([up, down, n - up - down], n, shares)
        for up in range(n + 1)
        for down in range(n + 1 - up)
        if mcnemar(up, down).p_value < 1 - 0.95
    )
    assert rate_power(difference, against, n, 0.95) == pytest.approx(rejected)


@pytest.mark.parametrize(
    ("difference", "changed", "rows"),
    [
        (0.03, 0.1, 870),
        (0.03, 0.2, 1742),
        (0.03, 0.3, 2614),
        (0.05, 0.1, 312),
        (0.05, 0.2, 626),
        (0.05, 0.3, 940),
        (0.10, 0.2, 155),
        (0.10, 0.3, 234),
    ],
)
def test_rows_for_a_rate_difference_follow_connors_equation(
    difference: float, changed: float, rows: int
) -> None:
    assert rows_for_rate_difference(difference, changed, 0.95) == rows
    # The exact power of the test we use stands close to his approximation.
    against = round((changed - difference) / 2 * rows)
    detectable = detectable_rate_difference(against, rows, 0.95)
    assert detectable == pytest.approx(difference, rel=0.06)


@given(st.integers(8, 120), st.floats(0, 0.3))
@settings(max_examples=40, deadline=None)
def test_the_detectable_rate_difference_has_the_promised_power(n: int, share: float) -> None:
    against = int(share * n)
    difference = detectable_rate_difference(against, n, 0.95)
    if difference is not None:
        assert rate_power(difference, against / n, n, 0.95) == pytest.approx(POWER, abs=1e-3)
        assert 0 < difference <= 1 - 2 * against / n


@pytest.mark.parametrize(("against", "n"), [(0, 0), (0, 1), (0, 5), (3, 6)])
def test_too_few_rows_can_show_no_rate_difference(against: int, n: int) -> None:
    assert detectable_rate_difference(against, n, 0.95) is None


def test_a_hundred_and_fifty_clean_rows_show_five_points() -> None:
    assert detectable_rate_difference(0, 150, 0.95) == pytest.approx(0.052, abs=5e-4)


@pytest.mark.parametrize("n", [8, 20, 100])
def test_the_detectable_mean_difference_agrees_with_statsmodels(n: int) -> None:
    differences = [float(index % 4) for index in range(n)]
    spread = float(stats.tstd(differences))
    expected = spread * TTestPower().solve_power(nobs=n, alpha=0.05, power=POWER)
    assert detectable_mean_difference(differences, 0.95) == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("differences", [[], [1.0], [0.5, 0.5, 0.5]])
def test_differences_without_spread_tell_nothing_of_means(differences: list[float]) -> None:
    assert detectable_mean_difference(differences, 0.95) is None


def test_rows_for_a_mean_difference_agree_with_statsmodels() -> None:
    differences = [float(index % 4) for index in range(50)]
    spread = float(stats.tstd(differences))
    detectable = detectable_mean_difference(differences, 0.95)
    assert detectable is not None
    expected = TTestPower().solve_power(effect_size=0.2 / spread, alpha=0.05, power=POWER)
    assert rows_for_mean_difference(0.2, detectable, 50) == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize(
    ("changed", "rows", "difference"),
    [(0.1, 870, 0.03), (0.2, 626, 0.05), (0.3, 940, 0.05), (0.2, 155, 0.1), (0.3, 234, 0.1)],
)
def test_before_a_run_rows_tell_what_they_can_show(
    changed: float, rows: int, difference: float
) -> None:
    # Sizes of McNemar's test without correction; ours is exact, and a little less powerful.
    assert detectable_at(changed, rows, 0.95) == pytest.approx(difference, rel=0.06)


def test_few_rows_can_show_nothing() -> None:
    assert detectable_at(0.1, 5, 0.95) is None
    assert detectable_at(0.3, 0, 0.95) is None
