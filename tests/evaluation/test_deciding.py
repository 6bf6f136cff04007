"""The verdict: its decision, and that its paragraph says what the numbers say."""

from collections.abc import Sequence

import pytest
from evaluation_fakes import CHRF, EXACT, LOSS, SETTINGS, make_system, passes

from luthier.evaluation import (
    Metric,
    SystemResult,
    Verdict,
    compare,
    decide,
    format_interval,
    strongest_baseline,
)
from luthier.evaluation.statistics import tango

Scores = Sequence[float | None]


def verdict(metric: Metric, before: Scores, after: Scores) -> Verdict:
    baseline = make_system("4 examples in the prompt", "few_shot", {metric: before})
    candidate = make_system("tuned", "tuned", {metric: after})
    comparison = compare(metric, baseline, candidate, SETTINGS, seed=0)
    assert comparison is not None
    return decide(metric, baseline, candidate, comparison, 0.95)


def test_a_clear_gain_is_better_and_the_paragraph_has_all_of_it() -> None:
    result = verdict(EXACT, passes(5, 150), passes(111, 150))
    assert result.decision == "better"
    assert result.paragraph == (
        "Better. On 150 held-out rows the tuned model's exact match is 74.0 % "
        "(95 % interval 66.4 to 80.4), against 3.3 % (95 % interval 1.4 to 7.6) for the "
        "strongest prompt (4 examples in the prompt). The difference is +70.7 points "
        "(95 % interval 62.9 to 77.4; McNemar mid-p, p < 0.001). 106 rows were fixed and none "
        "broken. The smallest difference that 150 rows could have shown reliably is 5.2 points."
    )


def test_a_clear_loss_is_worse() -> None:
    result = verdict(EXACT, passes(40, 50), passes(10, 50))
    assert result.decision == "worse"
    assert result.paragraph.startswith("Worse. On 50 held-out rows")
    assert "No row was fixed and 30 broken." in result.paragraph


def test_a_small_difference_cannot_be_told_and_says_how_many_rows_would() -> None:
    before = [1.0] * 20 + [0.0] * 20
    after = [1.0] * 16 + [0.0] * 4 + [1.0] * 6 + [0.0] * 14
    result = verdict(EXACT, before, after)
    assert result.decision == "cannot tell"
    assert result.paragraph.startswith("Cannot tell at n = 40. On 40 held-out rows")
    limits = tango(6, 4, 40, 0.95)
    interval = format_interval(EXACT, limits.low, limits.high)
    assert f"(95 % interval {interval}; McNemar exact, p = 0.754)" in result.paragraph
    assert "6 rows were fixed and 4 broken." in result.paragraph
    assert "To show a difference as small as the observed one takes about 783 rows." in (
        result.paragraph
    )


def test_no_difference_at_all_names_no_number_of_rows() -> None:
    result = verdict(EXACT, [1, 0, 1], [1, 0, 1])
    assert result.decision == "cannot tell"
    assert "No row was fixed and none broken." in result.paragraph
    assert "With 3 rows no difference could have been shown reliably." in result.paragraph
    assert "takes about" not in result.paragraph


def test_an_interval_without_zero_does_not_decide_alone() -> None:
    # Five fixed of five: Tango's interval excludes 0, McNemar's exact p is 0.0625.
    result = verdict(EXACT, [0] * 5, [1] * 5)
    assert result.comparison.low is not None
    assert result.comparison.low > 0
    assert result.decision == "cannot tell"


def test_a_lower_loss_is_better() -> None:
    before = [1.0 + 0.01 * index for index in range(20)]
    after = [value - 0.5 + 0.02 * (index % 3) for index, value in enumerate(before)]
    result = verdict(LOSS, before, after)
    assert result.decision == "better"
    assert "The difference is -0.481 nats" in result.paragraph
    assert "lower is better" in result.paragraph
    assert "20 rows improved and none worsened by more than 0.100 nats." in result.paragraph
    assert verdict(LOSS, after, before).decision == "worse"


def test_numbers_that_cannot_be_told_say_how_many_rows_would() -> None:
    after: Scores = [50.0 + (3, -2, 8, -7, 1, -1)[index % 6] for index in range(30)]
    result = verdict(CHRF, [50.0] * 30, after)
    assert result.decision == "cannot tell"
    assert "5 rows improved and 5 worsened by more than 5.0 points." in result.paragraph
    assert "takes about" in result.paragraph


def test_one_row_of_numbers_cannot_tell() -> None:
    result = verdict(CHRF, [10.0], [90.0])
    assert result.decision == "cannot tell"
    assert "95 % interval unknown" in result.paragraph
    assert "1 row improved and none worsened" in result.paragraph
    assert "With 1 row no difference" in result.paragraph


def test_rows_left_out_are_counted_in_the_paragraph() -> None:
    result = verdict(EXACT, [0, 0, None, 1], [1, 1, 1, None])
    assert "2 rows without a score under both systems had to be left out." in result.paragraph


def shots(name: str, value: float | None, kind: str = "few_shot") -> SystemResult:
    return make_system(name, "few_shot" if kind == "few_shot" else "zero_shot", {EXACT: [value]})


def test_the_strongest_prompt_is_the_best_by_the_primary_metric() -> None:
    systems = [shots("none", 0, "zero_shot"), shots("4", 1), shots("8", 0)]
    strongest = strongest_baseline(systems, [EXACT])
    assert strongest is not None
    assert strongest.name == "4"


@pytest.mark.parametrize("value", [0, 1])
def test_of_equal_prompts_the_cheaper_one_is_the_strongest(value: float) -> None:
    systems = [shots("4", value), shots("8", value), shots("none", value, "zero_shot")]
    strongest = strongest_baseline(systems, [EXACT])
    assert strongest is not None
    assert strongest.name == "none"
    strongest = strongest_baseline(systems[:2], [EXACT])
    assert strongest is not None
    assert strongest.name == "4"


def test_of_equal_prompts_the_one_better_on_the_next_metric_is_the_strongest() -> None:
    systems = [
        make_system("none", "zero_shot", {EXACT: [0.0], LOSS: [2.0]}),
        make_system("4", "few_shot", {EXACT: [0.0], LOSS: [1.0]}),
        make_system("8", "few_shot", {EXACT: [0.0], LOSS: [None]}),
    ]
    strongest = strongest_baseline(systems, [EXACT, LOSS])
    assert strongest is not None
    assert strongest.name == "4"


def test_the_lowest_loss_is_the_strongest() -> None:
    systems = [
        make_system("a", "zero_shot", {LOSS: [2.0]}),
        make_system("b", "few_shot", {LOSS: [1.0]}),
        make_system("c", "tuned", {LOSS: [0.1]}),
    ]
    strongest = strongest_baseline(systems, [LOSS])
    assert strongest is not None
    assert strongest.name == "b"


def test_a_prompt_without_a_score_is_not_the_strongest() -> None:
    strongest = strongest_baseline([shots("4", None), shots("8", 0)], [EXACT])
    assert strongest is not None
    assert strongest.name == "8"
    assert strongest_baseline([shots("4", None)], [EXACT]) is None
