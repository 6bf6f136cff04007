"""What twice as many rows would bring is read off what was wrong with fewer."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from luthier.evaluation import Metric, double

SHARE = Metric("exact", "exact match", "pass_fail", True, "share")
LOSS = Metric("loss", "loss", "number", False, "nats")
PLAIN = Metric("bonus", "bonus", "number", True, "plain")
SIZES = (100, 200, 400)


@given(power=st.floats(0.05, 1.5), start=st.floats(0.1, 4.0))
def test_a_power_law_is_found_again(power: float, start: float) -> None:
    """Losses that fall as a power of the rows go on to do so, to the last digit."""
    losses = [start * (n / 100) ** -power for n in (*SIZES, 800)]
    found = double(LOSS, SIZES, [[loss] * 5 for loss in losses[:3]], resamples=20)
    assert found is not None
    assert found.power == pytest.approx(power)
    assert found.value == pytest.approx(losses[3])
    assert found.low == pytest.approx(found.high)


def test_a_curve_that_became_flat_is_not_continued_as_if_it_had_not() -> None:
    found = double(LOSS, SIZES, [[0.988] * 9, [0.819] * 9, [0.812] * 9])
    assert found is not None
    assert found.value == pytest.approx(0.812 * 0.812 / 0.819)


def test_a_last_step_that_is_large_by_chance_is_not_trusted() -> None:
    found = double(LOSS, SIZES, [[1.0] * 9, [0.95] * 9, [0.6] * 9])
    assert found is not None
    assert found.power == pytest.approx(-np.log2(0.6) / 2)


def test_shares_grow_towards_one_and_never_beyond() -> None:
    rows = np.zeros((3, 200))
    for size, right in zip(range(3), (100, 150, 175), strict=True):
        rows[size, :right] = 1.0
    found = double(SHARE, SIZES, rows.tolist())
    assert found is not None
    assert found.value == pytest.approx(1 - 0.125 * 0.5)
    assert found.power == pytest.approx(1.0)
    assert 0.875 < found.low < found.value < found.high <= 1.0


def test_what_does_not_get_better_is_not_said_to() -> None:
    worse = [[1.0, 1.0, 0.0, 1.0], [1.0, 1.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]]
    found = double(SHARE, SIZES, worse)
    assert found is not None
    assert found.value == pytest.approx(0.25)
    assert found.power == 0.0


def test_what_is_perfect_stays_nearly_so() -> None:
    found = double(SHARE, SIZES, [[1.0] * 50] * 3)
    assert found is not None
    assert found.value == pytest.approx(0.99)


@pytest.mark.parametrize(
    ("metric", "sizes", "scores"),
    [
        (SHARE, (100, 200), [[1.0], [1.0]]),
        (SHARE, SIZES, [[], [], []]),
        (PLAIN, SIZES, [[1.0], [2.0], [3.0]]),
    ],
)
def test_nothing_is_said_where_nothing_is_known(
    metric: Metric, sizes: tuple[int, ...], scores: list[list[float]]
) -> None:
    assert double(metric, sizes, scores) is None


def test_the_interval_holds_what_comes() -> None:
    """Rows that are learnt as a power law has it: the true rate at twice the size lies within."""
    rng = np.random.default_rng(5)
    truth = [1 - 0.6 * (n / 100) ** -0.5 for n in (*SIZES, 800)]
    held = 0
    for trial in range(150):
        ease = rng.random(300)  # the same rows are easy for all sizes
        scores = [(ease < rate).astype(float).tolist() for rate in truth[:3]]
        found = double(SHARE, SIZES, scores, resamples=400, seed=trial)
        assert found is not None
        held += found.low <= truth[3] <= found.high
    assert held >= 132, "of 150 at 95 %; three standard deviations below"
