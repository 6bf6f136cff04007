"""Numbers read as people write them."""

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luthier.report import numbers
from luthier.report.numbers import Unit


def plain(text: str) -> str:
    """The text with plain spaces and a plain minus."""
    return text.replace("\u00a0", " ").replace("\u2212", "-").replace("\u2013", "none")


@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [
        (0.74, "share", "74.0 %"),
        (0.0, "share", "0.0 %"),
        (61.24, "points", "61.2"),
        (0.2314, "nats", "0.231"),
        (-0.0001, "nats", "0.000"),
        (None, "share", "none"),
        (math.nan, "share", "none"),
    ],
)
def test_metric_values_have_their_unit(value: float | None, unit: Unit, expected: str) -> None:
    assert plain(numbers.metric_value(value, unit)) == expected


def test_differences_carry_a_sign_and_percentages_differ_by_points() -> None:
    assert plain(numbers.signed_difference(0.707, "share")) == "+70.7 points"
    assert plain(numbers.signed_difference(-3.21, "points")) == "-3.2 points"
    assert plain(numbers.signed_difference(-0.5, "nats")) == "-0.500 nats"
    assert plain(numbers.signed_difference(0.0, "share")) == "0.0 points"
    assert plain(numbers.signed_difference(None, "share")) == "none"
    assert plain(numbers.difference(-0.707, "share")) == "70.7 points"
    assert plain(numbers.difference(None, "share")) == "none"


def test_intervals_name_their_unit_once() -> None:
    assert plain(numbers.metric_interval(0.664, 0.804, "share")) == "66.4 to 80.4 %"
    assert plain(numbers.difference_interval(-0.02, 0.06, "share")) == "-2.0 to 6.0"
    assert numbers.metric_interval(None, 0.5, "share") == ""


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0.00099, "p < 0.001"), (0.0341, "p = 0.034"), (0.5, "p = 0.500"), (math.nan, "none")],
)
def test_p_values_are_never_zero(value: float, expected: str) -> None:
    assert plain(numbers.p_value(value)) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (3.21, "3.2 s"),
        (9.96, "10 s"),
        (59.7, "1 min 00 s"),
        (413, "6 min 53 s"),
        (3725, "1 h 02 min"),
        (None, "none"),
        (math.inf, "none"),
    ],
)
def test_durations_are_said_as_people_say_them(seconds: float | None, expected: str) -> None:
    assert plain(numbers.duration(seconds)) == expected


@pytest.mark.parametrize(
    ("rate", "expected"),
    [(0.001, "0.001"), (0.00049, "4.9e-4"), (5e-5, "5e-5"), (0.0, "0"), (0.0123, "0.0123")],
)
def test_learning_rates_are_short(rate: float, expected: str) -> None:
    assert numbers.learning_rate(rate) == expected


def test_memory_and_counts_are_parted() -> None:
    assert plain(numbers.memory(3 * 2**30)) == "3.00 GiB"
    assert plain(numbers.memory(512 * 2**20)) == "512 MiB"
    assert plain(numbers.memory(None)) == "none"
    assert numbers.count(134515008) == "134,515,008"
    assert plain(numbers.count(None)) == "none"
    assert plain(numbers.counted(1, "row")) == "1 row"
    assert plain(numbers.counted(1200, "row")) == "1,200 rows"
    assert numbers.loss(0.5) == "0.500"


@given(st.floats(-1e9, 1e9), st.integers(0, 3))
def test_a_number_reads_back_to_what_it_was(value: float, decimals: int) -> None:
    text = numbers.plain_number(value, decimals)
    assert re.fullmatch(r"\u2212?\d{1,3}(,\d{3})*(\.\d+)?", text)
    back = float(text.replace("\u2212", "-").replace(",", ""))
    assert back == pytest.approx(value, abs=0.51 * 10**-decimals)
