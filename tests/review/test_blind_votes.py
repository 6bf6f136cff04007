"""Blind ballots, votes, and what becomes of them."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luthier.errors import DataError
from luthier.evaluation import Duel, Estimate, Prediction, SystemResult, preferred
from luthier.review import (
    Vote,
    ballots,
    corrected_rows,
    count_votes,
    preferred_rows,
    read_vote,
)
from tiny import chat

ROWS = [chat(("user", f"q{i}"), ("assistant", "t"), line=i) for i in range(1, 41)]


def system(name: str, kind: Any = "rival", texts: dict[int, str] | None = None) -> SystemResult:
    predictions = tuple(
        Prediction(row.id, (texts or {}).get(i, f"{name} says {i}"), True, 1)
        for i, row in enumerate(ROWS)
    )
    return SystemResult(name, kind, predictions, {}, {}, 1.0, None)


NEW, OLD = system("new", "candidate"), system("old")


def vote(row: int, choice: Any, rater: str = "ann", **more: str) -> Vote:
    return Vote(ROWS[row].id, "new", "old", rater, choice, **more)


def test_sides_are_mixed_and_stay_the_same() -> None:
    shown = list(ballots(ROWS, NEW, OLD, "ann"))
    assert len(shown) == 40
    swapped = sum(ballot.is_swapped for ballot in shown)
    assert 8 <= swapped <= 32
    assert shown == list(ballots(ROWS, NEW, OLD, "ann"))
    other = list(ballots(ROWS, NEW, OLD, "bob"))
    assert [b.example.id for b in shown] != [b.example.id for b in other]
    assert {b.example.id: b.is_swapped for b in shown} != {
        b.example.id: b.is_swapped for b in other
    }
    assert [b.example.id for b in shown] != [row.id for row in ROWS]


@given(st.text(max_size=8), st.sampled_from(["left", "right", "tie", "both bad"]))
def test_a_choice_names_the_system_that_was_seen_there(rater: str, choice: str) -> None:
    for ballot in list(ballots(ROWS, NEW, OLD, rater))[:5]:
        found = ballot.vote(choice, rater, "now")
        if choice in ("left", "right"):
            text = ballot.left if choice == "left" else ballot.right
            assert text.startswith("new" if found.outcome == 1 else "old")
        else:
            assert found.outcome == 0.5


def test_equal_and_missing_answers_and_rows_voted_on_are_no_ballots() -> None:
    own = system("new", texts={0: "same", 1: "x"})
    other = system("old", texts={0: " same"})
    broken = Prediction(ROWS[2].id, "", False, 0, error="gone")
    other = SystemResult(
        "old", "rival", (*other.predictions[:2], broken, *other.predictions[3:]), {}, {}, 1.0, None
    )
    shown = {b.example.id for b in ballots(ROWS, own, other, "ann", {ROWS[3].id})}
    assert shown == {row.id for row in ROWS} - {ROWS[i].id for i in (0, 2, 3)}


def test_votes_are_counted_by_row_with_each_persons_last_word() -> None:
    given_votes = [
        vote(0, "second"), vote(0, "first"), vote(0, "first", "bob"),
        vote(1, "first"), vote(1, "second", "bob"),
        vote(2, "second"), vote(3, "both bad"), vote(4, "first"),
    ]  # fmt: skip
    (count,), ranking = count_votes(given_votes, 0.95)
    assert (count.preferred.won, count.preferred.lost, count.preferred.tied) == (2, 1, 2)
    assert (count.num_both_bad, count.num_raters) == (1, 2)
    assert count.alpha == pytest.approx(0.0)
    assert ranking == []


def test_three_systems_are_ranked() -> None:
    given_votes = [vote(i, "first") for i in range(10)]
    given_votes += [Vote(ROWS[i].id, "new", "third", "ann", "first") for i in range(10)]
    given_votes += [Vote(ROWS[i].id, "old", "third", "ann", "tie") for i in range(10)]
    counts, ranking = count_votes(given_votes, 0.95)
    assert len(counts) == 3
    assert ranking[0].system == "new"


def test_people_are_set_beside_the_judge() -> None:
    outcomes = tuple([1.0] * 30 + [0.0] * 10)
    none = Estimate(None, None, None, 0, "")
    duel = Duel("wise", "new", "old", outcomes, preferred(outcomes, 0.95), none)
    given_votes = [vote(i, "first" if i < 15 else "second") for i in range(20)]
    given_votes += [vote(i, "second") for i in range(30, 34)]
    (count,), _ = count_votes(given_votes, 0.95, [duel], [row.id for row in ROWS])
    assert count.with_judge is not None
    assert count.with_judge.n == 24
    assert count.with_judge.alike == pytest.approx(19 / 24)
    assert count.with_judge.table["second", "first"] == 5
    assert count.corrected is not None
    assert count.corrected.low is not None
    assert count.corrected.low < 15 / 24 < count.corrected.high  # type: ignore[operator]


def test_votes_become_rows() -> None:
    given_votes = [
        vote(0, "first"), vote(1, "second"), vote(1, "tie", "bob"), vote(2, "first"),
        vote(2, "second", "bob"), vote(3, "both bad", correction="the truth"),
    ]  # fmt: skip
    rows = preferred_rows(given_votes, ROWS, [NEW, OLD])
    assert [r["preferred_output"][0]["content"] for r in rows] == ["new says 0", "old says 1"]
    assert rows[0]["non_preferred_output"][0]["content"] == "old says 0"
    assert rows[0]["input"]["messages"] == [{"role": "user", "content": "q1"}]
    (corrected,) = corrected_rows(given_votes, ROWS)
    assert corrected["messages"][-1] == {"role": "assistant", "content": "the truth"}
    assert "correction" in corrected["origin"]


@pytest.mark.parametrize(
    "content",
    [{}, {"row": "1", "first": "a", "second": "b", "rater": "c", "choice": "left"},
     {"row": 1, "first": "a", "second": "b", "rater": "c", "choice": "tie"}],
)  # fmt: skip
def test_lines_that_are_no_votes_are_refused(content: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=r"votes\.jsonl:3"):
        read_vote(content, "votes.jsonl:3")
