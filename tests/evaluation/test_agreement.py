"""Agreement of judges, votes that become strengths, few people beside many judgements."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from luthier.evaluation import (
    Estimate,
    PairedVote,
    agreement,
    krippendorff_alpha,
    prediction_powered_mean,
    strengths,
)

# Krippendorff (2011), "Computing Krippendorff's alpha-reliability", example C: four coders.
UNITS = [
    [1, 1, 1], [2, 2, 3, 2], [3, 3, 3, 3], [3, 3, 3, 3], [2, 2, 2, 2], [1, 2, 3, 4], [4, 4, 4, 4],
    [1, 1, 2, 1], [2, 2, 2, 2], [5, 5, 5], [1, 1], [3],
]  # fmt: skip
WORDS = {1.0: "first", 0.0: "second", 0.5: "tie"}


def test_alpha_is_that_of_the_paper() -> None:
    assert krippendorff_alpha(UNITS) == pytest.approx(0.743, abs=0.0005)


def test_alpha_of_agreement_chance_and_nothing() -> None:
    assert krippendorff_alpha([["a", "a"], ["b", "b"]]) == 1
    assert krippendorff_alpha([["a", "a"], ["a", "a"]]) == 1
    assert krippendorff_alpha([["a", "b"], ["b", "a"]]) == pytest.approx(-0.5)
    assert krippendorff_alpha([["a"], []]) is None
    rng = np.random.default_rng(0)
    by_chance = krippendorff_alpha(rng.integers(0, 3, (4000, 2)).tolist())
    assert by_chance == pytest.approx(0, abs=0.04)


@given(st.lists(st.tuples(*[st.sampled_from([0.0, 0.5, 1.0])] * 2), min_size=2, max_size=40))
def test_kappa_is_that_of_scikit_learn(pairs: list[tuple[float, float]]) -> None:
    first, second = [a for a, _ in pairs], [b for _, b in pairs]
    found = agreement(first, second, WORDS)
    if found.kappa is not None:
        labels = [str(x) for x in first], [str(x) for x in second]
        assert found.kappa == pytest.approx(cohen_kappa_score(*labels))
    assert sum(found.table.values()) == found.n == len(pairs)


def votes(first: str, second: str, won: int, lost: int, tied: int) -> list[PairedVote]:
    outcomes = [1.0] * won + [0.0] * lost + [0.5] * tied
    return [PairedVote(f"{first}{second}{i}", first, second, o) for i, o in enumerate(outcomes)]


def test_two_systems_have_the_ratio_of_their_wins() -> None:
    # With two systems Davidson's likelihood is greatest at p1 / p2 = wins / losses.
    (best, other) = strengths(votes("a", "b", 300, 100, 100), 0.95)
    assert (best.system, other.system) == ("a", "b")
    odds = [s.share / (1 - s.share) for s in (best, other)]
    assert odds[0] / odds[1] == pytest.approx(3, rel=0.01)
    assert best.low < best.share < best.high


def test_strengths_are_found_again() -> None:
    rng, strong = np.random.default_rng(3), {"a": 2.0, "b": 1.0, "c": 0.5}
    drawn = []
    for i in range(6000):
        first, second = rng.choice([*strong], 2, replace=False)
        p, q = strong[first], strong[second]
        shares = np.array([p, q, 0.7 * np.sqrt(p * q)])
        outcome = rng.choice([1.0, 0.0, 0.5], p=shares / shares.sum())
        drawn.append(PairedVote(str(i), first, second, float(outcome)))
    found = strengths(drawn, 0.95)
    assert [s.system for s in found] == ["a", "b", "c"]
    for strength in found:
        true = strong[strength.system] / (1 + strong[strength.system])
        assert strength.share == pytest.approx(true, abs=0.02)
        assert strength.low - 0.01 <= true <= strength.high + 0.01


def test_a_system_that_always_wins_stays_finite() -> None:
    best, *_ = strengths(votes("a", "b", 9, 0, 0) + votes("a", "c", 9, 0, 0), 0.95)
    assert best.system == "a"
    assert 0.5 < best.share < 1
    assert strengths([], 0.95) == []


def test_a_good_judge_narrows_and_a_useless_one_changes_nothing() -> None:
    def width(found: Estimate) -> float:
        assert found.low is not None
        assert found.high is not None
        return found.high - found.low

    rng, ratios = np.random.default_rng(1), []
    for _ in range(40):
        truth = (rng.random(3000) < 0.6).astype(float)
        judge = np.where(rng.random(3000) < 0.9, truth, 1 - truth)
        people = truth[:200].tolist()
        alone = prediction_powered_mean(people, [0.5] * 200, [0.5] * 2800, 0.95)
        assert alone.value == pytest.approx(truth[:200].mean())
        helped = prediction_powered_mean(people, judge[:200].tolist(), judge[200:].tolist(), 0.95)
        ratios.append(width(helped) / width(alone))
    # By hand: weight 0.736, variance 0.132 / 2800 + 0.0894 / 200 against 0.24 / 200.
    assert np.mean(ratios) == pytest.approx(0.642, abs=0.02)


@pytest.mark.parametrize("bias", [0.0, 0.3])
def test_its_interval_holds_the_truth_however_biased_the_judge_is(bias: float) -> None:
    rng, held, repeats = np.random.default_rng(7), 0, 400
    for _ in range(repeats):
        truth = (rng.random(1060) < 0.6).astype(float)
        judge = np.where(rng.random(1060) < 0.85, truth, 1 - truth)
        judge = np.where(rng.random(1060) < bias, 1.0, judge)
        found = prediction_powered_mean(
            truth[:60].tolist(), judge[:60].tolist(), judge[60:].tolist(), 0.95
        )
        assert found.low is not None
        assert found.high is not None
        held += found.low <= 0.6 <= found.high
    assert 0.92 <= held / repeats <= 0.985


def test_too_few_people_have_no_interval() -> None:
    assert prediction_powered_mean([1.0], [1.0], [0.0], 0.95).low is None
    assert prediction_powered_mean([], [], [0.0], 0.95).value is None
