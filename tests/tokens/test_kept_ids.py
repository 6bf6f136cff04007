"""Many examples are encoded as one by one, on several cores, and only once."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luthier.data import Chat, Message, Place, Preference, Rated, Text
from luthier.errors import TemplateError
from luthier.tokens import KeptIds, Tokenizer, encode_chat, encode_split, encode_text, encoding_many
from luthier.tokens.encoding_many import encode_chats, encode_documents
from luthier.tokens.kept_ids import Ids
from tiny import write_model


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return Tokenizer.load(write_model(tmp_path_factory.mktemp("model")))


def chat(number: int, answer: str = "") -> Chat:
    messages = (
        Message("user", f"question {number}"), Message("assistant", "first"),
        Message("user", "and then?"), Message("assistant", answer or f"answer {number}"),
    )  # fmt: skip
    return Chat(f"row {number}", Place("rows.jsonl", number), messages)


def refuse(*arguments: Any) -> Any:
    raise AssertionError("computed again")


@pytest.mark.parametrize("train_on", ["all", "last"])
def test_several_processes_encode_as_one(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch, train_on: Any
) -> None:
    monkeypatch.setattr(encoding_many, "WORTH_IT", 10)
    monkeypatch.setattr(encoding_many, "PART", 3)
    monkeypatch.setattr(encoding_many, "_num_workers", lambda: 2)
    chats = [chat(number) for number in range(20)]
    expected: list[Any] = [encode_chat(tokenizer, one, train_on) for one in chats]
    chats[7] = chat(7, "before<|im_end|>after")
    with pytest.raises(TemplateError) as raised:
        encode_chat(tokenizer, chats[7], train_on)
    found = encode_chats(tokenizer, chats, train_on)
    assert isinstance(found[7], TemplateError)
    assert str(found[7]) == str(raised.value)
    assert found[:7] + found[8:] == expected[:7] + expected[8:]


def test_what_was_encoded_is_not_encoded_again(
    tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = KeptIds(tmp_path / "ids")
    chats = [chat(number) for number in range(5)]
    texts = [Text(f"t{n}", Place("t", n), "word " * (40 * n + 1)) for n in range(5)]
    first = encode_chats(tokenizer, chats, "all", kept)
    pieces = encode_documents(tokenizer, texts, 30, kept)
    assert first == [encode_chat(tokenizer, one) for one in chats]
    assert pieces == [encode_text(tokenizer, text, 30) for text in texts]
    monkeypatch.setattr(encoding_many, "_encode_part", refuse)
    monkeypatch.setattr(Tokenizer, "encode_documents", refuse)
    assert encode_chats(tokenizer, chats, "all", kept) == first
    assert encode_documents(tokenizer, texts, 30, kept) == pieces
    for changed, train_on in ((chats[1:], "all"), ([*chats[:4], chat(9)], "all"), (chats, "last")):
        with pytest.raises(AssertionError, match="computed again"):
            encode_chats(tokenizer, changed, train_on, kept)  # type: ignore[arg-type]


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"text", None])
def test_damaged_files_are_computed_anew(
    tokenizer: Tokenizer, tmp_path: Path, content: bytes | None
) -> None:
    kept, chats = KeptIds(tmp_path), [chat(number) for number in range(5)]
    first = encode_chats(tokenizer, chats, "all", kept)
    (file,) = tmp_path.glob("*.npz")
    file.write_bytes(file.read_bytes()[:-40] if content is None else content)
    assert encode_chats(tokenizer, chats, "all", kept) == first


def test_where_nothing_can_be_written_nothing_is_kept(tokenizer: Tokenizer, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("here")
    chats = [chat(1)]
    found = encode_chats(tokenizer, chats, "all", KeptIds(tmp_path / "file" / "ids"))
    assert found == [encode_chat(tokenizer, chats[0])]


def test_rows_that_are_wrong_are_not_kept(tokenizer: Tokenizer, tmp_path: Path) -> None:
    chats = [chat(1), chat(2, "before<|im_end|>after")]
    for _ in range(2):
        with pytest.raises(TemplateError, match="ends a generation"):
            encode_split(tokenizer, "train", chats, train_on="all", max_length=100,
                         kept_ids=KeptIds(tmp_path))  # fmt: skip
    assert not [*tmp_path.glob("*.npz")]


def test_all_kinds_of_examples_are_kept(tokenizer: Tokenizer, tmp_path: Path) -> None:
    kinds: list[list[Any]] = [
        [chat(n) for n in range(4)],
        [Rated(chat(n), is_good=n % 2 == 0) for n in range(4)],
        [Preference(f"p{n}", Place("p", n), chat(n).prompt, Message("assistant", "yes"),
                    Message("assistant", f"no {n}")) for n in range(4)],
        [Text(f"t{n}", Place("t", n), "word " * (n + 3)) for n in range(4)],
    ]  # fmt: skip
    for examples in kinds:
        plain, first, again = (
            encode_split(tokenizer, "train", examples, train_on="all", max_length=60, kept_ids=kept)
            for kept in (None, KeptIds(tmp_path), KeptIds(tmp_path))
        )
        assert plain == first == again


@given(
    st.lists(
        st.tuples(
            st.lists(st.integers(0, 2**31 - 1), max_size=9),
            st.lists(st.integers(0, 2**31 - 1), max_size=4).map(tuple),
        ),
        max_size=8,
    )
)
def test_ids_come_back_as_they_were(
    tmp_path_factory: pytest.TempPathFactory, items: list[Ids]
) -> None:
    kept = KeptIds(tmp_path_factory.mktemp("ids"))
    assert kept.get(["key"], lambda: items) == items
    assert kept.get(["key"], refuse) == items
