"""Numbers as people read them."""

import pytest
from evaluation_fakes import CHRF, EXACT, LOSS

from luthier.evaluation import (
    Estimate,
    Metric,
    format_difference,
    format_estimate,
    format_interval,
    format_p,
    format_value,
)


@pytest.mark.parametrize(
    ("metric", "value", "expected"),
    [
        (EXACT, 0.74, "74.0 %"),
        (EXACT, 0.0, "0.0 %"),
        (CHRF, 61.24, "61.2"),
        (LOSS, 0.2314, "0.231 nats"),
    ],
)
def test_a_value_shows_its_unit(metric: Metric, value: float, expected: str) -> None:
    assert format_value(metric, value) == expected


@pytest.mark.parametrize(
    ("metric", "value", "expected"),
    [
        (EXACT, 0.7067, "+70.7 points"),
        (EXACT, -0.05, "-5.0 points"),
        (EXACT, -0.0001, "+0.0 points"),
        (CHRF, 3.0, "+3.0 points"),
        (LOSS, -0.5124, "-0.512 nats"),
    ],
)
def test_a_difference_shows_sign_and_unit(metric: Metric, value: float, expected: str) -> None:
    assert format_difference(metric, value) == expected


def test_a_size_has_no_sign() -> None:
    assert format_difference(EXACT, 0.05, signed=False) == "5.0 points"


def test_a_missing_interval_is_called_unknown() -> None:
    assert format_interval(EXACT, None, None) == "unknown"
    assert format_interval(EXACT, 0.664, 0.804) == "66.4 to 80.4"


def test_an_estimate_shows_value_and_interval() -> None:
    known = Estimate(0.74, 0.664, 0.804, 150, "Wilson")
    assert format_estimate(EXACT, known, 0.95) == "74.0 % (95 % interval 66.4 to 80.4)"
    assert format_estimate(EXACT, Estimate(None, None, None, 0, ""), 0.95) == "unknown"


@pytest.mark.parametrize(
    ("p_value", "expected"), [(0.0, "p < 0.001"), (0.0344, "p = 0.034"), (1.0, "p = 1.000")]
)
def test_a_p_value_is_never_zero(p_value: float, expected: str) -> None:
    assert format_p(p_value) == expected
