"""What is completed word for word is counted, and held against rows that nobody learnt."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.proportion import confint_proportions_2indep

from luthier.evaluation import Completed, weigh_memory
from luthier.evaluation.statistics import newcombe


def rows(passed: int, n: int) -> list[Completed]:
    return [Completed(f"row {i}", i < passed, "text", 4 + i) for i in range(n)]


@given(st.integers(0, 40), st.integers(1, 40), st.integers(0, 40), st.integers(1, 40))
def test_newcombes_interval_is_statsmodels(a: int, n: int, b: int, m: int) -> None:
    a, b = min(a, n), min(b, m)
    found = newcombe((a, n), (b, m), 0.95)
    wanted = confint_proportions_2indep(a, n, b, m, method="newcomb", compare="diff", alpha=0.05)
    assert (found.low, found.high) == pytest.approx(wanted, abs=1e-9)


def test_rows_known_by_heart_are_told_from_easy_ones() -> None:
    found = weigh_memory(rows(60, 100), rows(10, 100))
    assert found.difference == pytest.approx(0.5)
    assert found.low is not None
    assert found.low > 0.3
    assert "known by heart" in found.words
    assert "60.0 % of 100 learnt rows (95 % interval 50.2 to 69.1)" in found.words
    assert [row.num_tokens for row in found.rows[:2]] == [63, 62], "the longest first"
    assert len(found.rows) == 60


@pytest.mark.parametrize(
    ("learnt", "new", "said"),
    [((50, 100), (48, 100), "nothing shows that"), ((5, 100), (60, 100), "are not remembered"),
     ((5, 9), (0, 0), "0.0 % of 0 new ones")],
)  # fmt: skip
def test_the_rest_is_said_as_it_is(
    learnt: tuple[int, int], new: tuple[int, int], said: str
) -> None:
    assert said in weigh_memory(rows(*learnt), rows(*new)).words
