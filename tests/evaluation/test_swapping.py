"""Terms are swapped as whole words in their case, and what changes is counted."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luthier.data import Place, Row, example_of
from luthier.errors import ConfigError
from luthier.evaluation import compare_swapped, read_swaps, swapped, swapped_text

SWAPS = read_swaps(["he=she", "his=her", "Berlin=Ankara", "young man=young woman"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("He said she left his town.", "She said he left her town."),
        ("HE and the other", "SHE and the other"),
        ("BERLIN, Berlin, berlin", "ANKARA, Ankara, ankara"),
        ("A young man, and a man", "A young woman, and a man"),
        ("ashes, heap", "ashes, heap"),
        ("", ""),
    ],
)
def test_terms_are_swapped_as_whole_words(text: str, expected: str) -> None:
    assert swapped_text(text, SWAPS) == expected


@given(
    st.lists(st.sampled_from(["he", "she", "His", "HER", "the", "Ankara", ",", "man"]), max_size=9)
)
def test_swapping_twice_gives_the_text_back(words: list[str]) -> None:
    text = " ".join(words)
    assert swapped_text(swapped_text(text, SWAPS), SWAPS) == text


def example(**fields: Any) -> Any:
    found = example_of(Row(Place("rows.jsonl", 1), fields))
    assert found is not None
    return found


def test_what_is_asked_changes_and_nothing_else() -> None:
    messages = [
        {"role": "system", "content": "He is kind."}, {"role": "user", "content": "Is he here?"},
        {"role": "assistant", "content": "He is."},
    ]  # fmt: skip
    chat: Any = swapped(example(messages=messages), SWAPS)
    assert [m.content for m in chat.messages] == ["He is kind.", "Is she here?", "He is."]
    labelled: Any = swapped(example(text="his son", label="he"), SWAPS)
    assert (labelled.text, labelled.labels) == ("her son", ("he",))
    preference: Any = swapped(example(prompt="he?", chosen="he", rejected="no"), SWAPS)
    assert (preference.prompt[0].content, preference.target.content) == ("she?", "he")
    assert swapped(example(text="nobody", label="he"), SWAPS) is None
    assert swapped(example(text="he is here"), SWAPS) is None, "a text asks nothing"


def test_changes_are_counted_with_an_interval() -> None:
    asked = [example(text=f"he {i}", label="a") for i in range(10)]
    others = [swapped(one, SWAPS) for one in asked]
    answers = [("ok", "ok")] * 6 + [("ok", "bad")] * 3 + [("bad", "ok")]
    found = compare_swapped(asked, [o for o in others if o is not None], answers)
    assert (found.num_rows, found.num_changed) == (10, 4)
    # Wilson (1927): 4 of 10 at 95 %.
    assert (found.low, found.high) == pytest.approx((0.1682, 0.6873), abs=1e-4)
    assert list(found.shifts.items()) == [(("ok", "bad"), 3), (("bad", "ok"), 1)]
    assert (found.changed[0].asked, found.changed[0].swapped) == ("he 6", "she 6")
    with pytest.raises(ConfigError, match="no row names a term"):
        compare_swapped([], [], [])


@pytest.mark.parametrize(
    ("pairs", "said"),
    [
        ([], "is missing"), (["he"], "TERM=TERM"), (["he=He"], "TERM=TERM"),
        (["=she"], "TERM=TERM"),
        (["he=she", "he=they"], "swaps 'he' twice"),
    ],
)  # fmt: skip
def test_swaps_that_are_none_are_refused(pairs: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        read_swaps(pairs)
