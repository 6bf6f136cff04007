"""The bytes of tokens: what is written in tokens is written in their bytes."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luthier.tokens import Tokenizer
from luthier.tokens.letters import TokenBytes, letter_bytes
from tiny import CHATML, write_tokenizer


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(folder, CHATML)
    return Tokenizer.load(folder)


def test_each_byte_has_a_letter_of_its_own() -> None:
    assert sorted(letter_bytes().values()) == list(range(256))
    assert (letter_bytes()["A"], letter_bytes()["\u0120"]) == (0x41, 0x20)


@given(text=st.text(max_size=20))
def test_a_text_is_its_tokens_bytes(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.backend.encode(text, add_special_tokens=False).ids
    token_bytes = TokenBytes(tokenizer)
    assert b"".join(map(token_bytes.of, ids)) == text.encode()
    again = token_bytes.split(text.encode(), len(ids))
    assert len(again) == len(ids)
    assert b"".join(map(token_bytes.of, again)) == text.encode()


def test_what_cannot_be_split_is_not(tokenizer: Tokenizer) -> None:
    token_bytes = TokenBytes(tokenizer)
    assert token_bytes.split(b"ab", 9) == []
    assert token_bytes.split(b"", 3) == []
    assert token_bytes.of(10**9) == b""


def test_a_vocabulary_with_a_token_for_each_byte(tmp_path: Path) -> None:
    from tokenizers import models

    write_tokenizer(tmp_path, CHATML)
    tokenizer = Tokenizer.load(tmp_path)
    vocabulary = {"<0xE6>": 900, "<0x9C>": 901, "\u2581a": 902, "<unk>": 903}
    tokenizer.backend.model = models.BPE(vocabulary, [], unk_token="<unk>")
    token_bytes = TokenBytes(tokenizer)
    assert [token_bytes.of(token) for token in (900, 901, 902)] == [b"\xe6", b"\x9c", b" a"]
    assert token_bytes.split(b"\xe6\x9c", 2) == [900, 901]
