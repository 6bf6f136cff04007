"""What a search tries is read from a few words, and what cannot be compared is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luthier.errors import ConfigError
from luthier.recipe import Choices, Range, read_space


def test_ranges_and_choices_are_read() -> None:
    rate, epochs, rank, schedule = read_space(
        ["training.learning_rate=1e-5..1e-3", "training.epochs=1..4", "tuning.rank=4, 8,16",
         "training.schedule=cosine,linear"]
    )  # fmt: skip
    assert rate == Range("training.learning_rate", 1e-5, 1e-3, False)
    assert isinstance(rate, Range)
    assert rate.is_logarithmic
    assert rate.ends == ("1e-05", "0.001")
    assert epochs == Range("training.epochs", 1, 4, True)
    assert isinstance(epochs, Range)
    assert not epochs.is_logarithmic
    assert epochs.written(3.0) == "3"
    assert rank == Choices("tuning.rank", ("4", "8", "16"))
    assert schedule.ends == ("cosine", "linear")


@given(
    low=st.floats(1e-9, 1e3, allow_nan=False), factor=st.floats(1.01, 1e6), share=st.floats(0, 1)
)
def test_what_is_written_stays_in_its_range(low: float, factor: float, share: float) -> None:
    (tried,) = read_space([f"training.learning_rate={low!r}..{low * factor!r}"])
    assert isinstance(tried, Range)
    value = low + share * (tried.high - low)
    assert float(tried.written(value)) == pytest.approx(value, rel=1e-3)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("training.learning_rate", "is 'training.learning_rate'"),
        ("data.limit=10,20", "only fields of training and tuning"),
        ("training.max_length=64,128", "rows that are too long are left out"),
        ("training.seed=1,2", "by chance"),
        ("training=1,2", "only fields of training and tuning"),
        ("training.epochs=3", "two different values or more"),
        ("training.epochs=3,3", "two different values or more"),
        ("training.epochs=4..2", "LOW..HIGH"),
        ("training.epochs=few..many", "LOW..HIGH"),
        ("training.learning_rate=0..inf", "LOW..HIGH"),
    ],
)
def test_what_cannot_be_tried_is_refused(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        read_space([text])


def test_a_field_is_tried_once() -> None:
    with pytest.raises(ConfigError, match="given twice"):
        read_space(["tuning.rank=4,8", "tuning.rank=16,32"])
