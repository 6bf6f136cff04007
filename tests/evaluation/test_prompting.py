"""What is put before a question: the nearest solved examples, passages, other instructions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from luthier.data import Chat, Preference
from luthier.evaluation import (
    NearestShots,
    Passages,
    Prompt,
    VectorSearch,
    WordSearch,
    passages_of,
    question,
)
from tiny import chat

COLOURS = [
    chat(("system", "name it"), ("user", "the sky at noon"), ("assistant", "blue"), line=1),
    chat(("system", "name it"), ("user", "fresh grass in spring"), ("assistant", "green"), line=2),
    chat(("system", "name it"), ("user", "ripe tomatoes"), ("assistant", "red"), line=3),
]
ASKED = chat(("system", "name it"), ("user", "dry grass"), ("assistant", "yellow"), line=9)


def search() -> WordSearch:
    return WordSearch([question(solved) for solved in COLOURS])


def said(example: Chat) -> list[str]:
    return [message.content for message in example.messages]


def test_the_nearest_examples_stand_before_the_question_the_nearest_last() -> None:
    (found,) = Prompt(nearest=NearestShots(tuple(COLOURS), search(), 2)).asked([ASKED])
    assert said(found)[0] == "name it"
    assert said(found)[-4:] == ["fresh grass in spring", "green", "dry grass", "yellow"]
    assert len(found.messages) == 7
    assert found.target == ASKED.target


def test_passages_stand_before_the_last_question() -> None:
    texts = ("Grass turns yellow when it is dry.", "Iron rusts.")
    (found,) = Prompt(passages=Passages(texts, WordSearch(texts), 1)).asked([ASKED])
    assert said(found) == [
        "name it", "These passages may help:\n\nGrass turns yellow when it is dry.\n\ndry grass",
        "yellow",
    ]  # fmt: skip


def test_passages_are_looked_up_for_the_row_and_not_for_its_examples() -> None:
    texts = ("tomatoes are red", "grass is green")
    prompt = Prompt(shots=(COLOURS[2],), passages=Passages(texts, WordSearch(texts), 1))
    (found,) = prompt.asked([ASKED])
    assert "grass is green" in said(found)[-2]
    assert said(found)[1] == "ripe tomatoes"


def test_instructions_take_the_place_of_the_rows_own() -> None:
    (found,) = Prompt("in French").asked([ASKED])
    assert said(found) == ["in French", "dry grass", "yellow"]
    (bare,) = Prompt("in French").asked([chat(("user", "a"), ("assistant", "b"))])
    assert said(bare) == ["in French", "a", "b"]


def test_preferences_are_asked_as_their_chosen_answer() -> None:
    row = Preference("p", ASKED.place, ASKED.prompt, ASKED.target, COLOURS[0].target)
    assert Prompt().asked([row])[0].target.content == "yellow"


@pytest.mark.parametrize(
    ("texts", "queries"),
    [([], ["a"]), (["", ""], ["a"]), (["the"], ["zz"]), (["a cat"], [""]), (["a cat"], [])],
)
def test_a_search_without_words_finds_something_or_nothing(
    texts: list[str], queries: list[str]
) -> None:
    found = WordSearch(texts).nearest(queries, 3)
    assert [sorted(row) for row in found] == [list(range(len(texts)))] * len(queries)


def test_vectors_that_point_the_same_way_are_nearest() -> None:
    places = {"north": [0, 2], "east": [3, 0], "north-east": [1, 1], "up": [0.1, 9]}
    known = VectorSearch(
        ["north", "east", "north-east"], lambda texts: np.array([places[text] for text in texts])
    )
    assert known.nearest(["up", "east"], 2) == [[0, 2], [1, 2]]


@given(st.text(alphabet="ab \n", max_size=400), st.integers(1, 9))
def test_passages_hold_every_word_in_order(text: str, size: int) -> None:
    found = passages_of("title", text, size)
    words = [word for passage in found for word in passage.removeprefix("title\n").split()]
    assert words == text.split()
    assert all(len(passage.split()) <= size + 1 for passage in found)
