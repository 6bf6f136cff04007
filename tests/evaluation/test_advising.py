"""A verdict becomes a decision, with reasons and what to try next."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from evaluation_fakes import EXACT, make_evaluation, make_system

from luthier.data import Chat
from luthier.evaluation import (
    Decision,
    Estimate,
    EvaluationResult,
    General,
    Prediction,
    build_scorers,
    conclude,
    with_decision,
    with_losses,
)
from tiny import chat

JUDGING = make_evaluation("exact")
SCORERS = build_scorers(JUDGING)


def rows(n: int) -> list[Chat]:
    made = [chat(("user", f"q{i}"), ("assistant", "t"), line=i) for i in range(n)]
    return [
        replace(row, slices={"land": "PE" if i % 4 == 0 else "CL"}) for i, row in enumerate(made)
    ]


def decided(*given: Any, **settings: Any) -> Decision:
    found = concluded(*given, **settings).decision
    assert found is not None
    return found


def concluded(
    own: Sequence[float],
    other: Sequence[float],
    kind: Any = "zero_shot",
    general: General | None = None,
    **settings: Any,
) -> EvaluationResult:
    examples = rows(len(own))
    judging = make_evaluation("exact", **settings)
    systems = [
        replace(system, predictions=tuple(Prediction(e.id, "", True, 1) for e in examples))
        for system in (
            make_system("tuned", "tuned", {EXACT: own}),
            make_system("prompt", kind, {EXACT: other}),
        )
    ]  # fmt: skip
    result = replace(conclude(examples, systems, SCORERS, judging), general=general)
    return with_decision(result, SCORERS, judging)


def test_better_is_promoted() -> None:
    found = decided([1.0] * 60 + [0.0] * 20, [1.0] * 20 + [0.0] * 60)
    assert found.kind == "promote"
    assert found.reasons == ("it is better than prompt",)


@pytest.mark.parametrize(
    ("low", "high", "kind", "reason"),
    [
        (-0.02, 0.03, "promote", ""),
        (-0.2, -0.1, "keep iterating", "more than 5 points of general ability are lost"),
        (-0.1, 0.1, "keep iterating", "more than 5 points of general ability may be lost"),
        (None, None, "keep iterating", "more than 5 points of general ability may be lost"),
    ],
)
def test_a_gain_is_not_paid_for_with_general_ability(
    low: float | None, high: float | None, kind: str, reason: str
) -> None:
    share = Estimate(0.5, 0.4, 0.6, 50, "")
    general = General(share, share, 0.0, low, high, 0.05, 0.95, (), (), None)
    found = decided([1.0] * 60 + [0.0] * 20, [1.0] * 20 + [0.0] * 60, general=general)
    assert found.kind == kind
    assert (reason in found.reasons) == bool(reason)
    # A change within the margin needs more questions; only a loss needs gentler training.
    assert any("general rows" in step for step in found.next_steps) == ("are lost" in reason)
    assert any("more general questions" in s for s in found.next_steps) == ("may be" in reason)


def test_what_is_no_better_needs_no_second_reason() -> None:
    share = Estimate(0.5, 0.4, 0.6, 50, "")
    general = General(share, share, -0.3, -0.4, -0.2, 0.05, 0.95, (), (), None)
    found = decided([0.0] * 40, [1.0] * 30 + [0.0] * 10, general=general)
    assert found.kind == "prompting is enough"
    assert "more than 5 points of general ability are lost" in found.reasons
    assert not any("general rows" in step for step in found.next_steps)


def test_a_gain_must_be_worth_it() -> None:
    own, other = [1.0] * 60 + [0.0] * 20, [1.0] * 46 + [0.0] * 34
    assert decided(own, other).kind == "promote"
    found = decided(own, other, least_gain=0.15)
    assert found.kind == "keep iterating"
    assert "maybe by less than 15.0 points" in found.reasons[0]


def test_prompting_is_enough_where_it_is_better_or_no_gain_is_possible() -> None:
    assert decided([0.0] * 40, [1.0] * 30 + [0.0] * 10).kind == "prompting is enough"
    assert decided([0.0] * 40, [1.0] * 30 + [0.0] * 10, "rival").kind == "keep iterating"
    same = [1.0, 0.0] * 200
    assert decided(same, same, least_gain=0.05).kind == "prompting is enough"


def test_what_cannot_be_told_apart_is_said_with_what_would() -> None:
    found = decided([1.0] * 11 + [0.0] * 9, [1.0] * 10 + [0.0] * 10)
    assert found.kind == "not distinguishable"
    assert "judge on more rows" in found.next_steps[0]


def test_broken_rows_and_weak_slices_are_named() -> None:
    own = [0.0 if i % 4 == 0 else 1.0 for i in range(200)]
    other = [1.0 if i == 0 else 0.0 for i in range(200)]
    found = decided(own, other)
    assert found.reasons[1] == "1 row is worse than with prompt: look at them in the report"
    assert found.next_steps == (
        "learn from more rows with land 'PE': exact match is 0.0 % on 50 rows, 75.0 % on all",
    )
    assert found.words.startswith("Promote: it is better than prompt; 1 row is")


def test_chance_makes_no_slice_weak() -> None:
    own = [float(i % 8 < 4) for i in range(200)]
    assert decided(own, [0.0] * 200).next_steps == ()


def test_without_a_verdict_there_is_no_decision() -> None:
    result = EvaluationResult((EXACT,), "exact", (), (), (), None)
    assert with_decision(result, SCORERS, JUDGING) == result


@pytest.mark.parametrize("least", [-0.1])
def test_a_negative_gain_is_none(least: float) -> None:
    with pytest.raises(ValueError, match="greater than or equal to 0"):
        make_evaluation("exact", least_gain=least)


@pytest.mark.parametrize(
    ("losses", "said"),
    [
        ([2.0, 1.0, 0.8, 1.0, 1.2], "learn less long"),
        ([2.0, 1.6, 1.3, 1.0, 0.8], "learn longer"),
        ([2.0, 1.0, 0.9, 0.9, 0.895], "luthier search"),
        ([2.0, 1.0], ""),
        # Measured after steps 0, 10, 20, 30, 40 and 41, say: the last one ends no quarter.
        ([4.0, 3.0, 2.5, 2.0, 1.5, 1.49], "learn longer"),
    ],
)
def test_the_course_of_the_loss_says_what_to_try(losses: list[float], said: str) -> None:
    result = concluded([0.0, 1.0] * 20, [1.0, 0.0] * 20)
    points = [(min(10 * i, 41), loss) for i, loss in enumerate(losses)]
    found = with_losses(result, points).decision
    assert found is not None
    assert result.decision is not None
    more = found.next_steps[len(result.decision.next_steps) :]
    assert [said in step for step in more] == ([True] if said else [])
    promoted = concluded([1.0] * 60 + [0.0] * 20, [1.0] * 20 + [0.0] * 60)
    assert with_losses(promoted, points) is promoted
    share = Estimate(0.5, 0.4, 0.6, 50, "")
    lost = General(share, share, -0.3, -0.4, -0.2, 0.05, 0.95, (), (), None)
    unlearnt = concluded([1.0] * 60 + [0.0] * 20, [1.0] * 20 + [0.0] * 60, general=lost)
    assert with_losses(unlearnt, points) is unlearnt, "it is told to move the model less already"
