"""General ability: what is asked, what counts as kept, and what is refused."""

import json
import math
from pathlib import Path

import pytest
from evaluation_fakes import make_evaluation
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from luthier.data import Place
from luthier.errors import DataError
from luthier.evaluation import (
    General,
    GeneralSet,
    Knowledge,
    Question,
    from_json,
    general_set,
    to_json,
    weigh_general,
)
from luthier.evaluation.general import Passage
from luthier.evaluation.offending import offensive_words

HERE = Place("own.jsonl", 1)
JUDGING = make_evaluation("exact", resamples=200)


def asked(n: int, passages: int = 0) -> GeneralSet:
    questions = tuple(
        Question("sums", f"q{i}", ("a", "b", "c", "d"), i % 4, HERE) for i in range(n)
    )
    return GeneralSet(questions, tuple(Passage("prose", "text", HERE) for _ in range(passages)), "")


def knowing(shares: list[float], losses: tuple[tuple[float, int], ...] = ()) -> Knowledge:
    """A model that gives right choices these shares of the likelihood."""
    found = []
    for i, share in enumerate(shares):
        rest = math.log((1 - share) / 3)
        found.append(tuple(math.log(share) if j == i % 4 else rest for j in range(4)))
    return Knowledge(tuple(found), losses)


def weighed(before: list[float], after: list[float], margin: float = 0.05) -> General:
    settings = JUDGING.model_copy(update={"general_margin": margin})
    return weigh_general(asked(len(before)), knowing(before), knowing(after), settings)


def test_the_built_in_set_is_whole() -> None:
    found = general_set(JUDGING)
    assert len(found.questions) == 500
    assert len(found.passages) == 50
    assert {q.subject for q in found.questions} == {"words", "trivia", "commands"}
    assert {p.subject for p in found.passages} == {"code", "prose"}
    assert all(len(set(q.choices)) == 4 for q in found.questions)
    assert len({q.question for q in found.questions}) == 500
    for place in range(4):
        assert 90 <= sum(q.answer == place for q in found.questions) <= 160, "no place is favoured"


def test_the_difference_is_that_of_shares_with_students_interval() -> None:
    before = [0.3 + 0.4 * (i % 7) / 7 for i in range(120)]
    after = [share + 0.02 * (i % 5 - 1.5) for i, share in enumerate(before)]
    found = weighed(before, after)
    changes = [b - a for a, b in zip(before, after, strict=True)]
    limits = stats.ttest_rel(after, before).confidence_interval(0.95)
    assert found.before.value == pytest.approx(sum(before) / 120)
    assert found.after.value == pytest.approx(sum(after) / 120)
    assert found.difference == pytest.approx(sum(changes) / 120)
    assert (found.low, found.high) == pytest.approx((limits.low, limits.high))


def test_kept_lost_and_not_shown() -> None:
    before = [0.4 + 0.3 * (i % 5) / 5 for i in range(200)]
    noise = [0.1 * (i % 3 - 1) for i in range(200)]
    same = [b + n for b, n in zip(before, noise, strict=True)]
    worse = [b - 0.2 + n for b, n in zip(before, noise, strict=True)]
    rather = [b - 0.05 + n for b, n in zip(before, noise, strict=True)]
    assert weighed(before, same).outcome == "kept"
    assert weighed(before, worse).outcome == "lost"
    assert weighed(before, rather).outcome == "not shown"
    assert weighed(before, rather, margin=0.1).outcome == "kept"
    assert "is lost" in weighed(before, worse).words
    assert weighed(before, before).outcome == "kept"
    few = weighed(before[:19], before[:19])
    assert few.low == 0
    assert few.outcome == "not shown", "19 questions show nothing"
    assert weighed(before[:20], before[:20]).outcome == "kept"


def test_the_built_in_questions_are_decent_and_have_one_right_answer() -> None:
    found = general_set(JUDGING)
    assert len(found.questions) == 500
    assert len(found.passages) == 50
    for question in found.questions:
        text = " ".join((question.question, *question.choices))
        assert offensive_words(text) == [], question.place
        assert len({choice.lower() for choice in question.choices}) == 4


def test_what_is_picked_and_perplexity_are_by_subject() -> None:
    questions = (
        Question("sums", "q", ("a", "b", "c", "d"), 0, HERE),
        Question("towns", "q", ("a", "b"), 1, HERE),
    )  # fmt: skip
    both = GeneralSet(questions, (Passage("prose", "x", HERE), Passage("code", "y", HERE)), "")
    before = Knowledge(((-1.0, -2.0, -3.0, -4.0), (-1.0, -2.0)), ((8.0, 4), (3.0, 3)))
    after = Knowledge(((-2.0, -1.0, -3.0, -4.0), (-2.0, -1.0)), ((4.0, 4), (6.0, 3)))
    found = weigh_general(both, before, after, JUDGING, 0.25)
    assert [(c.subject, c.n, c.before, c.after) for c in found.picked] == [
        ("sums", 1, 1.0, 0.0), ("towns", 1, 0.0, 1.0),
    ]  # fmt: skip
    assert [change.subject for change in found.perplexity] == ["prose", "code"]
    assert [change.before for change in found.perplexity] == pytest.approx([math.e**2, math.e])
    assert [change.after for change in found.perplexity] == pytest.approx([math.e, math.e**2])
    assert "Perplexity went from 7.4 to 2.7 on prose, 2.7 to 7.4 on code." in found.words
    assert from_json(to_json(found), General) == found
    assert from_json(to_json(before), Knowledge) == before


def test_questions_too_long_for_the_model_do_not_count() -> None:
    before = Knowledge(((-1.0, -2.0, -3.0, -4.0), ()), ())
    found = weigh_general(asked(2), before, before, JUDGING)
    assert found.before.n == 1
    nothing = weigh_general(asked(1), Knowledge(((),), ()), Knowledge(((),), ()), JUDGING)
    assert nothing.outcome == "not shown"
    assert nothing.before.value is None
    assert "0 questions" in nothing.words


@given(st.lists(st.lists(st.floats(-5000, 0), min_size=4, max_size=4), min_size=1, max_size=30))
def test_any_likelihoods_give_shares(found: list[list[float]]) -> None:
    known = Knowledge(tuple(tuple(each) for each in found), ())
    weighed = weigh_general(asked(len(found)), known, known, JUDGING)
    assert weighed.before.value is not None
    assert 0 <= weighed.before.value <= 1
    assert weighed.difference == 0


def read(folder: Path, *rows: object) -> GeneralSet:
    place = folder / "own.jsonl"
    place.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return general_set(JUDGING.model_copy(update={"general": place}))


def test_questions_of_ones_own(tmp_path: Path) -> None:
    right = {"question": "1 + 1?", "choices": ["1", "2"], "answer": "2"}
    found = read(tmp_path, right, {"text": "A text.", "subject": "prose"})
    place = str(tmp_path / "own.jsonl")
    assert found.questions == (Question("all", "1 + 1?", ("1", "2"), 1, Place(place, 1)),)
    assert found.passages == (Passage("prose", "A text.", Place(place, 2)),)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"question": "q", "choices": ["a"], "answer": "a"}, "choices is ['a']"),
        ({"question": "q", "choices": "ab", "answer": "a"}, "choices is 'ab'"),
        ({"question": "q", "choices": ["a", 2], "answer": "a"}, "choices holds what is no text"),
        ({"question": "q", "choices": ["a", "a"], "answer": "a"}, "choices names one twice"),
        ({"question": "q", "choices": ["a", "b"], "answer": "c"}, "answer is 'c'"),
        ({"question": "q", "choices": ["a", "b"]}, "answer is None"),
        ({"question": " ", "choices": ["a", "b"], "answer": "a"}, "has no text and no question"),
        ({"text": ""}, "has no text and no question"),
        ({"text": "x", "subject": 3}, "subject is 3"),
    ],
)
def test_what_is_no_question_is_refused_with_its_line(
    tmp_path: Path, wrong: object, said: str
) -> None:
    right = {"question": "1 + 1?", "choices": ["1", "2"], "answer": "2"}
    with pytest.raises(DataError) as caught:
        read(tmp_path, right, wrong)
    assert "own.jsonl:2" in str(caught.value)
    assert said in str(caught.value)


def test_texts_alone_cannot_show_an_ability(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no question"):
        read(tmp_path, {"text": "A text."})
