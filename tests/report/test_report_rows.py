"""Rows side by side: outcomes, the choice of rows, shared system messages."""

import dataclasses
import math

from hypothesis import given
from hypothesis import strategies as st
from report_cases import CHRF, EXACT, LOSS, SYSTEM, chat, small_evaluation, system_result

from luthier.data import Chat, Message, Place, ToolCall, as_chat
from luthier.evaluation.values import Estimate, EvaluationResult
from luthier.report.differences import MAX_CHARACTERS
from luthier.report.pairing import OUTCOME_ORDER, Pairing, pair_systems, row_outcomes
from luthier.report.rows import (
    as_turn,
    choose_rows,
    message_text,
    rows_side_by_side,
    shared_system_message,
)


def paired(evaluation: EvaluationResult) -> Pairing:
    """The pairing, which is there."""
    pairing = pair_systems(evaluation)
    assert pairing
    return pairing


def test_every_row_has_the_outcome_that_its_scores_say() -> None:
    evaluation = small_evaluation()
    outcomes = row_outcomes(evaluation, paired(evaluation))
    assert outcomes == ("fixed", "broken", "both_right", "both_wrong")


def test_rows_under_a_number_are_clearly_different_or_not() -> None:
    evaluation = small_evaluation()
    systems = tuple(
        dataclasses.replace(system, scores={"exact": (1.0, 0.5, None, 0.25)})
        for system in evaluation.systems
    )
    metric = dataclasses.replace(EXACT, kind="number")
    evaluation = dataclasses.replace(evaluation, systems=systems, metrics=(metric,))
    table = rows_side_by_side(evaluation, paired(evaluation))
    titles = {row.id: row.outcome_title for row in table.rows}
    assert titles == {"t1": "Better", "t2": "Worse", "t3": "Not scored", "t4": "No clear change"}
    assert table.rows[0].answers[0].mark == "50.0\u00a0%"


def test_without_a_verdict_the_strongest_prompt_stands_beside_the_tuned_model() -> None:
    evaluation = small_evaluation()
    chats = evaluation.examples
    answers = ["", "", "", ""]
    weak, strong, none = (
        system_result(name, "few_shot", chats, answers, estimates)
        for name, estimates in (
            ("weak", {"exact": Estimate(0.1, 0, 1, 4, ""), "loss": Estimate(1.0, 0, 2, 4, "")}),
            ("strong", {"exact": Estimate(0.2, 0, 1, 4, ""), "loss": Estimate(2.0, 0, 3, 4, "")}),
            ("none", {"exact": Estimate(None, None, None, 0, "")}),
        )
    )
    tuned = evaluation.systems[1]
    open_ = EvaluationResult((EXACT, LOSS), "exact", chats, (none, weak, strong, tuned), (), None)
    pairing = paired(open_)
    assert pairing.baseline is strong
    assert pairing.candidate is tuned
    assert row_outcomes(open_, pairing) == (None,) * 4
    by_loss = paired(dataclasses.replace(open_, primary="loss"))
    assert by_loss.baseline is weak


def test_an_unknown_primary_metric_pairs_nothing() -> None:
    assert pair_systems(dataclasses.replace(small_evaluation(), primary=CHRF.name)) is None


@given(st.lists(st.sampled_from([*OUTCOME_ORDER, None]), max_size=60), st.integers(0, 30))
def test_chosen_rows_show_every_outcome_and_broken_ones_first(
    outcomes: list[str | None], limit: int
) -> None:
    chosen = choose_rows(outcomes, limit)  # type: ignore[arg-type]
    assert len(chosen) == len(set(chosen)) == min(limit, len(outcomes))
    shown = [outcomes[row] for row in chosen]
    order = [*OUTCOME_ORDER, None]
    assert shown == sorted(shown, key=order.index)  # type: ignore[arg-type]
    if limit >= len(order):
        assert set(shown) == set(outcomes)
    broken = math.ceil(limit / len(order))
    assert shown.count("broken") >= min(broken, outcomes.count("broken"))


def test_a_system_message_that_all_rows_share_is_shown_once() -> None:
    evaluation = small_evaluation()
    table = rows_side_by_side(evaluation, paired(evaluation))
    assert table.shared_system
    assert table.shared_system.text == SYSTEM
    assert all(turn.role == "user" for row in table.rows for turn in row.prompt)


def test_system_messages_that_differ_stay_with_their_rows() -> None:
    prompts = [chat("a", 1, "p", "t", "one").prompt, chat("b", 2, "p", "t", "two").prompt]
    assert shared_system_message(prompts) is None
    assert shared_system_message(prompts[:1]) is None
    assert shared_system_message([prompt[1:] for prompt in prompts]) is None
    assert shared_system_message([]) is None
    assert shared_system_message([(), ()]) is None


def test_rows_keep_their_place_and_notes() -> None:
    evaluation = small_evaluation()
    rows = {row.id: row for row in rows_side_by_side(evaluation, paired(evaluation)).rows}
    assert rows["t2"].place == "test.jsonl:2"
    assert rows["t1"].answers[0].notes == ("nothing in common to mark",)
    assert rows["t1"].answers[1].is_right is True
    assert rows["t4"].answers[1].difference.kind == "empty"


def test_an_answer_cut_at_the_limit_says_so_and_equal_json_says_so() -> None:
    evaluation = small_evaluation()
    before, after = evaluation.systems
    same = '{"name":"desk lamp","intent":"TurnOn"}'
    cut = dataclasses.replace(after.predictions[0], text=same, stopped=False, num_tokens=64)
    after = dataclasses.replace(after, predictions=(cut, *after.predictions[1:]))
    evaluation = dataclasses.replace(evaluation, systems=(before, after))
    rows = {row.id: row for row in rows_side_by_side(evaluation, paired(evaluation)).rows}
    notes = rows["t1"].answers[1].notes
    assert notes == ("cut at 64\u00a0tokens", "same JSON, written differently")


def test_a_row_named_by_its_place_is_not_named_twice() -> None:
    evaluation = small_evaluation()
    first = as_chat(evaluation.examples[0])
    renamed = Chat("test.jsonl:1", Place("test.jsonl", 1), first.messages)
    evaluation = dataclasses.replace(evaluation, examples=(renamed, *evaluation.examples[1:]))
    rows = rows_side_by_side(evaluation, paired(evaluation)).rows
    assert next(row for row in rows if row.id == "test.jsonl:1").place == ""


def test_a_message_says_its_calls() -> None:
    call = ToolCall("1", "turn_on", '{"name": "lamp"}')
    message = Message("assistant", "Doing it.", tool_calls=(call,))
    assert message_text(message) == 'Doing it.\nturn_on({"name": "lamp"})'


def test_a_huge_message_is_cut_for_display() -> None:
    turn = as_turn(Message("user", "x" * 5_000_000))
    assert len(turn.text) == MAX_CHARACTERS
    assert turn.num_hidden == 5_000_000 - MAX_CHARACTERS
