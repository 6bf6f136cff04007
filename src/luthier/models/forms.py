"""Forms that answers are held to: JSON, or JSON of a schema, by the tokens that may follow.

Which tokens may follow is llguidance's to say; it compiles a schema in milliseconds and knows what
of JSON Schema it does not.
"""

from collections.abc import Sequence
from typing import Any

import torch
from llguidance import LLMatcher, LLTokenizer
from torch import Tensor

from luthier.errors import ConfigError
from luthier.models.engine import Allow
from luthier.tokens import Tokenizer

ANY_OBJECT = {"type": "object"}


class Forms:
    """The forms that one tokenizer's tokens can be held to."""

    def __init__(self, tokenizer: Tokenizer, vocabulary: int) -> None:
        """`vocabulary`: width of the model's logits."""
        self._tokenizer = LLTokenizer(
            tokenizer.backend.to_str(), n_vocab=vocabulary, eos_token=sorted(tokenizer.stop_ids)
        )

    def json(self, schema: dict[str, Any] | None = None) -> Allow:
        """Which tokens [V] may follow an answer so far; to be asked for one answer only.

        Raises ConfigError where the schema is none, or says what is not known.
        """
        try:
            grammar = LLMatcher.grammar_from_json_schema(ANY_OBJECT if schema is None else schema)
            matcher = LLMatcher(self._tokenizer, grammar, log_level=0)
        except ValueError as error:
            raise _unknown(str(error)) from error
        if matcher.is_error():
            raise _unknown(matcher.get_error())
        known = 0

        def allow(ids: Sequence[int]) -> Tensor:
            nonlocal known
            matcher.consume_tokens(list(ids[known:]))
            known = len(ids)
            bits = torch.frombuffer(bytearray(matcher.compute_bitmask()), dtype=torch.uint8)
            return (bits[:, None] >> torch.arange(8)).bitwise_and_(1).flatten().bool()

        return allow


def _unknown(found: str) -> ConfigError:
    return ConfigError(
        f"cannot be held to: {found.splitlines()[0]}",
        where="response_format.json_schema.schema",
        accepted="a JSON Schema without external references",
    )
