"""Traced strings behave as strings, and never lie about where characters come from."""

from hypothesis import given
from hypothesis import strategies as st

from luthier.tokens.tracing import Traced, concat, stretches_of

TEXT = st.text(alphabet="ab <|>\n", max_size=12)


def origin_of(text: str) -> list[int | None]:
    """For each character, the message it stems from."""
    origins: list[int | None] = [None] * len(text)
    for start, end, message in stretches_of(text):
        origins[start:end] = [message] * (end - start)
    return origins


def tagged(text: str) -> Traced:
    """Every character written by a message of its own."""
    return concat(Traced.written_by(i, character) for i, character in enumerate(text))


@given(TEXT, st.integers(-14, 14), st.integers(-14, 14), st.sampled_from([None, 1, 2, -1]))
def test_a_slice_keeps_the_origin_of_each_character(
    text: str, start: int, end: int, step: int | None
) -> None:
    cut = tagged(text)[start:end:step]
    assert cut == text[start:end:step]
    if step in (None, 1):
        assert origin_of(cut) == list(range(len(text)))[start:end]


@given(TEXT)
def test_stripping_keeps_the_origin_of_what_is_left(text: str) -> None:
    for stripped, plain in (
        (tagged(text).strip(), text.strip()),
        (tagged(text).lstrip("a"), text.lstrip("a")),
        (tagged(text).rstrip("\n"), text.rstrip("\n")),
        (tagged(text).removeprefix("a"), text.removeprefix("a")),
        (tagged(text).removesuffix("b"), text.removesuffix("b")),
    ):
        assert stripped == plain
        assert [text[i] for i in origin_of(stripped) if i is not None] == list(plain)


@given(TEXT, st.sampled_from([None, "a", "<|", "\n"]), st.integers(-1, 3))
def test_splitting_gives_the_same_pieces_with_their_origin(
    text: str, separator: str | None, most: int
) -> None:
    for cuts, pieces in (
        (tagged(text).split(separator, most), text.split(separator, most)),
        (tagged(text).rsplit(separator, most), text.rsplit(separator, most)),
        (tagged(text).splitlines(), text.splitlines()),
        (list(tagged(text).partition("a")), list(text.partition("a"))),
        (list(tagged(text).rpartition("a")), list(text.rpartition("a"))),
    ):
        assert cuts == pieces
        for cut in cuts:
            assert [text[i] for i in origin_of(cut) if i is not None] == list(cut)


@given(TEXT, st.sampled_from(["a", "<|", "\n", ""]), st.sampled_from(["", "xyz"]))
def test_replacing_keeps_the_origin_of_what_stays(text: str, old: str, new: str) -> None:
    replaced = tagged(text).replace(old, new)
    assert replaced == text.replace(old, new)
    for character, origin in zip(replaced, origin_of(replaced), strict=True):
        assert origin is None or text[origin] == character


@given(TEXT, TEXT, TEXT)
def test_concatenation_on_either_side_shifts_the_origin(a: str, b: str, c: str) -> None:
    joined = a + Traced.written_by(7, b) + c
    assert joined == a + b + c
    assert origin_of(joined) == [None] * len(a) + [7] * len(b) + [None] * len(c)
    assert Traced(a).join([b, Traced.written_by(1, c)]) == a.join([b, c])
