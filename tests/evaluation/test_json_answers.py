"""Reading answers as JSON, whatever a model wrote."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luthier.evaluation.json_answers import JsonAnswer, read_json

SCALARS: Any = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5)
).filter(lambda value: value not in (float("inf"), float("-inf")))
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=12,
)


def read(text: str) -> JsonAnswer:
    answer = read_json(text)
    assert answer is not None
    return answer


@given(VALUES)
@settings(max_examples=150, deadline=None)
def test_key_order_and_spacing_do_not_change_an_answer(value: Any) -> None:
    loose = json.dumps(value, indent=3)
    tight = json.dumps(value, sort_keys=True, separators=(",", ":"))
    assert read(loose) == read(tight)


@given(VALUES, VALUES)
@settings(max_examples=150, deadline=None)
def test_equal_leaves_mean_equal_json(left: Any, right: Any) -> None:
    def typed(value: Any) -> Any:
        # Python holds True == 1; JSON does not.
        if isinstance(value, dict):
            return {key: typed(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [typed(inner) for inner in value]
        return (isinstance(value, bool), value)

    assert (read(json.dumps(left)) == read(json.dumps(right))) == (typed(left) == typed(right))


@given(st.text() | st.text(alphabet='[]{}",:0123456789truefalsn- \n'))
@settings(max_examples=300, deadline=None)
def test_no_text_makes_the_reader_raise(text: str) -> None:
    answer = read_json(text)
    assert answer is None or answer.leaves


@pytest.mark.parametrize("text", ["", " ", "{", "NaN", "[Infinity]", "-Infinity", "{'a': 1}", "a"])
def test_what_json_does_not_allow_is_no_answer(text: str) -> None:
    assert read_json(text) is None


@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_nesting_deeper_than_the_stack_does_not_crash(opening: str) -> None:
    assert read_json(opening * 200_000) is None
    closing = "]" if opening == "[" else "}"
    closed = opening * 200_000 + "1" + closing * 200_000
    assert read_json(closed) is None
    read_json(opening * 900 + "1" + closing * 900)


def test_an_integer_of_too_many_digits_does_not_crash() -> None:
    assert read_json("9" * 5000) is None


def test_of_a_repeated_key_the_last_one_holds() -> None:
    assert read('{"a": 1, "a": 2}') == read('{"a": 2}')


def test_numbers_are_equal_by_value_and_true_is_no_number() -> None:
    assert read("[1, 2.50]") == read("[1.0, 2.5]")
    assert read("[true]") != read("[1]")


def test_empty_containers_differ_from_each_other_and_from_null() -> None:
    kinds = [read(text) for text in ('{"a": {}}', '{"a": []}', '{"a": null}', "{}", "[]")]
    assert all(left != right for i, left in enumerate(kinds) for right in kinds[i + 1 :])
