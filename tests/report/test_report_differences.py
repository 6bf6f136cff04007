"""Differences: the answer is kept, what is marked is what differs, JSON is read as JSON."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luthier.report.differences import MAX_CHARACTERS, Piece, compare_texts

TEXTS = st.text(st.sampled_from('ab cd12.,{}"\n') | st.characters(), max_size=60)


@settings(deadline=None)
@given(TEXTS, TEXTS)
def test_shared_and_added_pieces_are_the_answer(reference: str, answer: str) -> None:
    difference = compare_texts(reference, answer)
    kept = "".join(piece.text for piece in difference.pieces if piece.kind != "missing")
    assert kept == answer
    assert all(piece.text for piece in difference.pieces)


@settings(deadline=None)
@given(TEXTS)
def test_a_text_equals_itself(text: str) -> None:
    assert compare_texts(text, text).kind == ("identical" if text else "empty")


def test_a_changed_number_is_marked_whole() -> None:
    assert compare_texts("set it to 48 now", "set it to 42 now").pieces == (
        Piece("same", "set it to "),
        Piece("missing", "48"),
        Piece("added", "42"),
        Piece("same", " now"),
    )


def test_letters_are_marked_inside_of_words_that_are_nearly_the_same() -> None:
    pieces = compare_texts("the lamp is on", "the lamps is on").pieces
    assert pieces == (Piece("same", "the lamp"), Piece("added", "s"), Piece("same", " is on"))


def test_order_of_keys_and_white_space_are_not_differences_in_json() -> None:
    difference = compare_texts('{"a": 1, "b": [2]}', '{ "b":[2],\n "a":1 }')
    assert difference.kind == "same meaning"


def test_json_is_compared_key_by_key_in_the_answers_order() -> None:
    reference = {"intent": "TurnOn", "slots": {"name": "lamp", "area": "den"}}
    answer = {"slots": {"area": "hall", "name": "lamp"}, "intent": "TurnOn"}
    pieces = compare_texts(json.dumps(reference), json.dumps(answer)).pieces
    assert [piece for piece in pieces if piece.kind != "same"] == [
        Piece("missing", "den"),
        Piece("added", "hall"),
    ]


def test_items_of_lists_are_compared_in_their_places() -> None:
    pieces = compare_texts('[{"a": 1, "b": 2}, {"c": 3}]', '[{"b": 2, "a": 1}]').pieces
    assert [piece.text for piece in pieces if piece.kind == "added"] == []
    assert "".join(piece.text for piece in pieces if piece.kind == "missing") == ', {"c": 3}'


def test_keys_that_the_answer_lacks_are_missing() -> None:
    pieces = compare_texts('{"name": "desk lamp", "area": "den"}', '{"name": "desk lamp"}').pieces
    assert [piece for piece in pieces if piece.kind != "same"] == [
        Piece("missing", ', "area": "den"')
    ]


def test_an_answer_with_nothing_in_common_is_left_unmarked() -> None:
    answer = "Sure! I would be glad to help you with that request."
    difference = compare_texts('{"intent": "TurnOn"}', answer)
    assert difference.kind == "unlike"
    assert difference.pieces == (Piece("same", answer),)


def test_punctuation_alone_is_compared_too() -> None:
    assert compare_texts("?!", "?!...").kind == "differs"


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a": ' * 50_000])
def test_deeply_nested_text_is_compared_as_text(text: str) -> None:
    assert compare_texts(text, text + "x").kind == "differs"


def test_a_huge_answer_is_cut_for_display_and_says_by_how_much() -> None:
    difference = compare_texts("a b", "a b " * 1_000_000)
    assert difference.num_hidden == 4_000_000 - MAX_CHARACTERS
    assert sum(len(piece.text) for piece in difference.pieces) <= MAX_CHARACTERS
