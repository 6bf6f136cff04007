"""Several answers to each row become one system."""

import pytest
from evaluation_fakes import SETTINGS, ScriptedPredictor, make_chat

from luthier.evaluation import averaged, build_scorers, combine, conclude, run_system
from luthier.evaluation.values import Kind, SystemResult

ROWS = [make_chat(f"row-{i}", "yes") for i in range(4)]
SCORERS = build_scorers(SETTINGS)


def drawn(name: str, kind: Kind, *answers: str) -> SystemResult:
    """A system from strings such as "yn-y": right, wrong, not answered, right."""
    draws = []
    for said in answers:
        predictor = ScriptedPredictor(name)
        for letter in said:
            predictor.enqueue("yes" if letter == "y" else "no", loss=0.5)
        draws.append(run_system(predictor, kind, ROWS, SCORERS, SETTINGS))
    return combine(draws, SCORERS, ROWS, SETTINGS)


def test_a_row_counts_the_mean_of_its_answers() -> None:
    found = drawn("a", "candidate", "yyny", "ynny", "ynnn", "yynn")
    assert found.scores["exact"] == (1.0, 0.5, 0.0, 0.5)
    assert found.estimates["exact"].value == 0.5
    assert found.estimates["exact"].n == 4
    assert found.scores["exact_pass_at_4"] == (1.0, 1.0, 0.0, 1.0)
    assert found.scores["exact_flips"] == (0.0, 1.0, 0.0, 1.0)
    assert found.scores["loss"] == (0.5,) * 4


def test_systems_are_compared_by_rows_and_not_by_answers() -> None:
    first = drawn("a", "candidate", "yyyy", "yyyy", "yyyy")
    second = drawn("b", "rival", "nnnn", "nnnn", "nnnn")
    result = conclude(ROWS, [first, second], averaged(SCORERS, 3), SETTINGS)
    assert result.verdict is not None
    # Four rows flip their signs in 16 ways; twelve answers would have shown a difference.
    assert result.verdict.comparison.p_value == 2**-3
    assert result.verdict.decision == "cannot tell"
    names = [metric.name for metric in result.metrics]
    assert names == ["exact", "exact_pass_at_3", "exact_flips", "loss"]
    assert result.metrics[0].title == "exact match, mean of 3 answers"


@pytest.mark.parametrize("count", [1, 5])
def test_equal_answers_never_flip(count: int) -> None:
    found = drawn("a", "candidate", *["yyyn"] * count)
    assert found.estimates["exact_flips"].value == 0
