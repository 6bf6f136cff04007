"""Forms that answers are held to: JSON, of a schema, or a call of a tool, by the tokens that may
follow.

Which tokens may follow is llguidance's to say; it compiles a schema in milliseconds and knows what
of JSON Schema it does not.
"""

import json
import re
from collections.abc import Sequence
from typing import Any

import torch
from llguidance import LLMatcher, LLTokenizer
from torch import Tensor

from luthier.errors import ConfigError
from luthier.models.engine import Allow
from luthier.tokens import CallForm, Tokenizer

ANY_OBJECT = {"type": "object"}

# A schema alone allows any amount of space between its parts, and a weak model writes nothing else.
BLANKS = {"whitespace_pattern": r"([ ]|\r?\n[ \t]{0,60})?"}
ONE_LINE = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}


MAPS = {"properties", "$defs", "definitions"}
"""What of a schema holds schemas by name."""
OPEN = {"additionalProperties", "patternProperties", "allOf", "anyOf", "oneOf", "$ref", "if"}
"""What of an object's schema says more of its properties."""


class Forms:
    """The forms that one tokenizer's tokens can be held to."""

    def __init__(self, tokenizer: Tokenizer, vocabulary: int) -> None:
        """`vocabulary`: width of the model's logits."""
        added = tokenizer.backend.get_added_tokens_decoder()
        self._special = {token.content: number for number, token in added.items() if token.special}
        self._tokenizer = LLTokenizer(
            tokenizer.backend.to_str(), n_vocab=vocabulary, eos_token=sorted(tokenizer.stop_ids)
        )

    def json(self, schema: dict[str, Any] | None = None) -> Allow:
        """Which tokens [V] may follow an answer so far; to be asked for one answer only.

        Raises ConfigError where the schema is none, or says what is not known.
        """
        where = "response_format.json_schema.schema"
        try:
            wanted = {**(ANY_OBJECT if schema is None else _closed(schema)), "x-guidance": BLANKS}
            grammar = LLMatcher.grammar_from_json_schema(wanted)
        except ValueError as error:
            raise _unknown(str(error), where) from error
        return self._held_to(grammar, where)

    def call(self, form: CallForm, schema: dict[str, Any]) -> Allow:
        """Which tokens [V] may follow where an answer is to be a call of this JSON Schema.

        Raises ConfigError where the schema is none, or says what is not known.
        """
        around = [self._literal(form.before), "call", self._literal(form.after)]
        wanted = json.dumps({**_closed(schema), "x-guidance": ONE_LINE})
        grammar = f"start: {' '.join(around)}\ncall: %json {wanted}\n"
        try:
            return self._held_to(LLMatcher.grammar_from_lark(grammar), "tools")
        except ValueError as error:
            raise _unknown(str(error), "tools") from error

    def _literal(self, text: str) -> str:
        """A text in a grammar, its special tokens by their ids."""
        if not self._special:
            return json.dumps(text) if text else ""
        parts = re.split(f"({'|'.join(map(re.escape, self._special))})", text)
        return " ".join(
            f"<[{self._special[part]}]>" if part in self._special else json.dumps(part)
            for part in parts
            if part
        )

    def _held_to(self, grammar: str, where: str) -> Allow:
        try:
            matcher = LLMatcher(self._tokenizer, grammar, log_level=0)
        except ValueError as error:
            raise _unknown(str(error), where) from error
        if matcher.is_error():
            raise _unknown(matcher.get_error(), where)
        known = 0

        def allow(ids: Sequence[int]) -> Tensor:
            nonlocal known
            matcher.consume_tokens(list(ids[known:]))
            known = len(ids)
            bits = torch.frombuffer(bytearray(matcher.compute_bitmask()), dtype=torch.uint8)
            return (bits[:, None] >> torch.arange(8)).bitwise_and_(1).flatten().bool()

        return allow


def _closed(schema: Any) -> Any:
    """The schema, its objects with the properties that it names and no others.

    A schema that says nothing of others allows any, and a weak model goes on naming some for ever.
    """
    if not isinstance(schema, dict):
        return schema
    found = dict(schema)
    for name in found.keys() & MAPS:
        if isinstance(found[name], dict):
            found[name] = {key: _closed(value) for key, value in found[name].items()}
    for name in found.keys() & {"anyOf", "oneOf", "prefixItems"}:
        if isinstance(found[name], list):
            found[name] = [_closed(value) for value in found[name]]
    if "items" in found:
        found["items"] = _closed(found["items"])
    if "properties" in found and not found.keys() & OPEN:
        found["additionalProperties"] = False
    return found


def _unknown(found: str, where: str) -> ConfigError:
    return ConfigError(
        f"cannot be held to: {found.splitlines()[0]}",
        where=where,
        accepted="a JSON Schema without external references",
    )
