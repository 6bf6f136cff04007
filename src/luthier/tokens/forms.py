"""Forms that answers are held to: JSON, of a schema, or a call of a tool.

A form is a grammar in the syntax of llguidance, which our own engine, llama.cpp and vLLM all read:
each engine finds by it which tokens may follow.
"""

import json
import re
from typing import Any

from llguidance import LLMatcher

from luthier.errors import ConfigError
from luthier.tokens.calls import CallForm
from luthier.tokens.tokenizer import Tokenizer

ANY_OBJECT = {"type": "object"}

# A schema alone allows any amount of space between its parts, and a weak model writes nothing else.
BLANKS = {"whitespace_pattern": r"([ ]|\r?\n[ \t]{0,60})?"}
ONE_LINE = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}

MAPS = {"properties", "$defs", "definitions"}
"""What of a schema holds schemas by name."""
OPEN = {"additionalProperties", "patternProperties", "allOf", "anyOf", "oneOf", "$ref", "if"}
"""What of an object's schema says more of its properties."""


def json_form(schema: dict[str, Any] | None = None) -> str:
    """JSON of a JSON Schema; any object where there is none.

    Raises ConfigError where the schema is none, or says what is not known.
    """
    wanted = {**(ANY_OBJECT if schema is None else _closed(schema)), "x-guidance": BLANKS}
    return _checked(f"start: %json {json.dumps(wanted)}\n", "response_format.json_schema.schema")


def tool_call_form(tokenizer: Tokenizer, form: CallForm, schema: dict[str, Any]) -> str:
    """A call of this JSON Schema, as a model's template writes calls.

    Raises ConfigError where the schema is none, or says what is not known.
    """
    parts = [_literal(tokenizer, form.before), "call", _literal(tokenizer, form.after)]
    wanted = json.dumps({**_closed(schema), "x-guidance": ONE_LINE})
    return _checked(f"start: {' '.join(parts)}\ncall: %json {wanted}\n", "tools")


def _literal(tokenizer: Tokenizer, text: str) -> str:
    """A text in a grammar, its special tokens by their ids."""
    added = tokenizer.backend.get_added_tokens_decoder()
    special = {token.content: number for number, token in added.items() if token.special}
    if not special:
        return json.dumps(text) if text else ""
    parts = re.split(f"({'|'.join(map(re.escape, special))})", text)
    return " ".join(
        f"<[{special[part]}]>" if part in special else json.dumps(part) for part in parts if part
    )


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


def _checked(grammar: str, where: str) -> str:
    try:
        wrong = LLMatcher.validate_grammar(LLMatcher.grammar_from_lark(grammar))
    except ValueError as error:
        wrong = str(error)
    if not wrong:
        return grammar
    found = wrong.splitlines()[0].partition("JSON schema: ")[2] or wrong.splitlines()[0]
    raise ConfigError(
        f"cannot be held to: {found}",
        where=where,
        accepted="a JSON Schema without external references",
    )
