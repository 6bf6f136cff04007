"""The bytes that tokens stand for, in vocabularies by bytes or with a token for each byte."""

import re
from collections.abc import Sequence
from functools import cached_property, lru_cache

from luthier.tokens.tokenizer import Tokenizer

BYTE = re.compile(r"<0x([0-9A-F]{2})>")
SPACE = "\u2581"
"""How tokenizers that are not by bytes write a space."""


class TokenBytes:
    """Bytes of a vocabulary's tokens."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    def of(self, token: int) -> bytes:
        """What the token stands for; nothing where there is no such token."""
        return self._bytes.get(token, b"")

    def split(self, text: bytes, count: int) -> Sequence[int]:
        """So many tokens that stand for this together; the longest first. None where none do."""
        if count == 0 or not text:
            return []
        for end in range(len(text), 0, -1):
            token = self._ids.get(text[:end])
            if token is None or (end == len(text)) != (count == 1):
                continue
            rest = self.split(text[end:], count - 1)
            if len(rest) == count - 1:
                return [token, *rest]
        return []

    @cached_property
    def _bytes(self) -> dict[int, bytes]:
        vocabulary = self._tokenizer.backend.get_vocab()
        added = self._tokenizer.backend.get_added_tokens_decoder()
        is_by_bytes = "\u0120" in "".join(map(str, vocabulary))
        found = {}
        for text, token in vocabulary.items():
            if token in added:
                found[token] = text.encode()
            elif byte := BYTE.fullmatch(text):
                found[token] = bytes([int(byte[1], 16)])
            elif is_by_bytes:
                found[token] = bytes(letter_bytes().get(letter, 0) for letter in text)
            else:
                found[token] = text.replace(SPACE, " ").encode()
        return found

    @cached_property
    def _ids(self) -> dict[bytes, int]:
        return {text: token for token, text in self._bytes.items()}


@lru_cache
def letter_bytes() -> dict[str, int]:
    """The byte that each letter stands for in vocabularies by bytes (Radford et al. 2019, "Language
    Models are Unsupervised Multitask Learners"): printable ones for themselves."""
    shown = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in shown]
    return {chr(byte): byte for byte in shown} | {
        chr(256 + place): byte for place, byte in enumerate(hidden)
    }
