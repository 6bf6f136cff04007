"""Charts: well-formed, described in words, and inside of their frame."""

import dataclasses
import math
import random
import xml.etree.ElementTree as ET
from typing import Literal

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from report_cases import CHRF, EXACT, LOSS, small_evaluation

from luthier.evaluation.values import Estimate, Metric
from luthier.report.bars import (
    Bar,
    Segment,
    difference_chart,
    outcome_bar,
    score_bars,
    stage_bars,
)
from luthier.report.curves import best_point, loss_chart, rate_chart, smoothed, thinned
from luthier.report.svg import Scale, element, tick_decimals, ticks
from luthier.report.values import StepPoint, ValidationPoint
from luthier.report.watched import MEANINGS, watched_charts

NUMBERS = ("x", "y", "x1", "x2", "y1", "y2", "cx", "cy", "width", "height")
LABELS = st.text(st.sampled_from("<&>\"'\x00\ud800") | st.characters(), max_size=40)


def parsed(svg: str) -> ET.Element:
    """The chart as a tree, with its title and description there and all numbers finite."""
    root = ET.fromstring(svg)
    assert [child.tag for child in root[:2]] == ["title", "desc"]
    assert root[0].text
    assert root[1].text
    assert root.get("aria-labelledby") == f"{root[0].get('id')} {root[1].get('id')}"
    width = float(root.get("viewBox", "").split()[2])
    for part in root.iter():
        for name in NUMBERS:
            value = float(part.get(name, 0))
            assert math.isfinite(value)
            assert -10 <= value <= width + 10
    return root


def texts(root: ET.Element) -> list[str]:
    """All lines of text in a chart."""
    return ["".join(part.itertext()) for part in root.iter("text")]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(LABELS, st.floats(0, 1), st.floats(0, 1)), max_size=4),
    st.sampled_from([EXACT, CHRF, LOSS]),
)
@example([("", 0.0, 5e-324)], EXACT)
@example([("", 0.0, 5e-324), ("", 5e-324, 1.0)], LOSS)
def test_score_bars_are_well_formed_for_all_labels_and_values(
    systems: list[tuple[str, float, float]], metric: Metric
) -> None:
    bars = [
        Bar(label, Estimate(value, value * width, value + (1 - value) * width, 9, "m"), width > 0.5)
        for label, value, width in systems
    ]
    assert len(list(parsed(score_bars(metric, bars)).iter("g"))) >= len(bars)


def test_a_bar_begins_at_zero_and_ends_at_its_value() -> None:
    root = parsed(score_bars(EXACT, [Bar("one", Estimate(0.5, None, None, 4, ""), False)]))
    (bar,) = root.iter("rect")
    assert (float(bar.get("x", 0)), float(bar.get("width", 0))) == (232, (730 - 232) / 2)
    assert "one" in texts(root)
    assert "50.0\u00a0%" in texts(root)


def test_a_system_without_scores_says_no_data() -> None:
    bars = [Bar("one", None, False), Bar("two", Estimate(None, None, None, 0, ""), True)]
    root = parsed(score_bars(EXACT, bars))
    assert texts(root).count("no data") == 2
    assert not list(root.iter("rect"))


def test_values_that_are_not_finite_are_not_drawn() -> None:
    bars = [
        Bar("one", Estimate(math.inf, 1.0, math.inf, 3, ""), False),
        Bar("two", Estimate(1.0, math.nan, 2.0, 3, ""), True),
    ]
    root = parsed(score_bars(LOSS, bars))
    assert texts(root).count("no data") == 1
    assert len(list(root.iter("rect"))) == 1


def test_small_shares_get_an_axis_on_which_they_can_be_told_apart() -> None:
    bars = [Bar("one", Estimate(0.03, 0.01, 0.07, 100, ""), False)]
    assert "100\u00a0%" not in texts(parsed(score_bars(EXACT, bars)))
    whole = [Bar("one", Estimate(0.7, 0.6, 0.8, 100, ""), False)]
    assert "100\u00a0%" in texts(parsed(score_bars(EXACT, whole)))


@settings(max_examples=40, deadline=None)
@given(
    st.floats(-1, 1),
    st.none() | st.floats(0, 1),
    st.none() | st.floats(0, 1),
    st.sampled_from([EXACT, CHRF, LOSS]),
)
def test_difference_charts_are_well_formed(
    value: float, smallest: float | None, reach: float | None, metric: Metric
) -> None:
    comparison = dataclasses.replace(
        small_evaluation().comparisons[0],
        difference=value,
        low=None if reach is None else value - reach,
        high=None if reach is None else value + reach,
        minimum_detectable=smallest,
    )
    parsed(difference_chart(metric, comparison, "unclear"))


@pytest.mark.parametrize(("metric", "right"), [(EXACT, "better"), (LOSS, "worse")])
def test_the_side_that_is_better_follows_the_metric(metric: Metric, right: str) -> None:
    root = parsed(difference_chart(metric, small_evaluation().comparisons[0], "unclear"))
    assert f"{right} \u2192" in texts(root)


def test_outcome_segments_fill_the_whole_bar() -> None:
    counts: list[tuple[Literal["fixed", "broken", "both_wrong"], int]] = [
        ("fixed", 70),
        ("broken", 1),
        ("both_wrong", 29),
    ]
    root = parsed(outcome_bar([Segment(outcome, outcome, num) for outcome, num in counts]))
    widths = [float(part.get("width", 0)) + 1 for part in root.iter("rect")]
    assert sum(widths) == pytest.approx(920)
    assert texts(root) == ["70", "29"]


def test_stages_are_drawn_in_proportion() -> None:
    root = parsed(stage_bars([("one", 10.0), ("two", 30.0), ("none", 0.0)]))
    one, two, none = (float(part.get("width", 0)) for part in root.iter("rect"))
    assert two == pytest.approx(3 * one)
    assert none == 1
    parsed(stage_bars([("nothing", 0.0)]))


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.floats(0, 1e6) | st.just(math.nan) | st.just(math.inf), max_size=30),
    st.lists(st.floats(0, 100) | st.just(math.nan), max_size=5),
)
def test_curves_are_well_formed_for_all_losses(losses: list[float], checks: list[float]) -> None:
    curve = [StepPoint(step, loss, 0.001) for step, loss in enumerate(losses, 1)]
    validation = [ValidationPoint(10 * step, loss) for step, loss in enumerate(checks)]
    parsed(loss_chart(curve, validation))
    parsed(rate_chart(curve))


def test_a_loss_that_is_not_finite_is_counted_in_the_description() -> None:
    curve = [StepPoint(1, 2.0, 0.001), StepPoint(2, math.nan, 0.001)]
    assert "1\u00a0loss value not finite" in (parsed(loss_chart(curve, ()))[1].text or "")


def test_the_best_validation_loss_is_the_first_of_the_lowest() -> None:
    points = [ValidationPoint(s, loss) for s, loss in ((0, 2.0), (5, 1.0), (9, 1.0))]
    assert best_point([*points, ValidationPoint(12, math.nan)]) == points[1]
    assert best_point([]) is None
    label = "best 1.000 at step 5"
    assert label in texts(parsed(loss_chart([StepPoint(1, 2.0, 0.1)], points)))


@given(st.floats(0.01, 100), st.integers(1, 200))
def test_a_constant_curve_is_smoothed_to_itself(value: float, num: int) -> None:
    points = [(float(step), value) for step in range(num)]
    assert [mean for _, mean in smoothed(points)] == pytest.approx([value] * num)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 3_000), st.randoms(use_true_random=False))
def test_thinning_keeps_the_extremes_in_order(num: int, rng: random.Random) -> None:
    values = [rng.gauss(0, 1) for _ in range(num)]
    points = [(float(step), value) for step, value in enumerate(values)]
    kept = thinned(points, 100)
    assert len(kept) <= 100
    assert kept == sorted(kept)
    assert set(kept) <= set(points)
    assert {min(values), max(values)} <= {value for _, value in kept}


@settings(deadline=None)
@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6), st.integers(2, 10))
def test_ticks_are_few_round_and_inside(low: float, reach: float, wanted: int) -> None:
    marks = ticks(low, low + reach, wanted)
    assert len(marks) <= wanted + 1
    slack = 1e-6 * (abs(low) + reach)
    assert all(low - slack <= mark <= low + reach + slack for mark in marks)


def test_ticks_of_an_empty_range_are_its_one_value() -> None:
    assert ticks(3, 3, 5) == [3]
    assert tick_decimals([0.0, 0.5]) == 1
    assert tick_decimals([0.0, 1e-9 / 3, math.pi]) == 6


def test_a_scale_keeps_values_inside_of_its_ends() -> None:
    scale = Scale(0, 10, 100, 200)
    assert [scale(value) for value in (-5, 0, 5, 10, 99)] == [100, 100, 150, 200, 200]
    assert Scale(1, 1, 7, 9)(1) == 7


@given(LABELS)
def test_elements_escape_what_they_hold(label: str) -> None:
    root = ET.fromstring(element("a", label, class_=label))
    assert list(root) == []


def test_everything_watched_has_a_chart_that_says_where_it_ends() -> None:
    validation = [
        ValidationPoint(step, 0.6, {"preference_accuracy": 0.5 + step / 100, "kl_to_start": 0.01})
        for step in (10, 20)
    ]
    found = watched_charts(validation)
    assert [chart.title for chart in found] == ["Preference accuracy", "Divergence from the start"]
    root = parsed(found[0].chart)
    assert (root[1].text or "").endswith("0.5 is chance. Ends at 0.700 at step 20.")
    assert watched_charts([ValidationPoint(1, 0.5)]) == []


@given(st.lists(st.floats(allow_nan=True), min_size=1, max_size=5), st.sampled_from(list(MEANINGS)))
def test_any_watched_number_can_be_drawn(values: list[float], name: str) -> None:
    points = [ValidationPoint(i, 0.0, {name: value}) for i, value in enumerate(values)]
    for chart in watched_charts(points):
        parsed(chart.chart)


def test_the_loss_says_what_it_is_the_mean_of() -> None:
    curve = [StepPoint(1, 0.7, 1e-4)]
    assert "nats per token" in loss_chart(curve, [ValidationPoint(1, 0.7)])
    assert "mean over rows" in loss_chart(curve, [ValidationPoint(1, 0.7, {"reward_margin": 0.1})])
