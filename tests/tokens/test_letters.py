"""The bytes of tokens: what is written in tokens is written in their bytes."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luthier.tokens import Tokenizer
from luthier.tokens.letters import TokenBytes, letter_bytes


def test_each_byte_has_a_letter_of_its_own() -> None:
    assert sorted(letter_bytes().values()) == list(range(256))
    assert letter_bytes()["A"] == 0x41
    assert letter_bytes()["\u0120"] == 0x20
