"""Rows of an eval's run: read, checked against the eval's schema, made into requests."""

import json
from contextlib import suppress
from typing import Any

import jsonschema

from luthier.errors import DataError
from luthier.evaluation import MissingError, fill, look_up
from luthier.jobs.tables import Body
from luthier.server.clerk import Errand
from luthier.server.errors import ApiError
from luthier.server.wire import Wire

WAYS = {"completions", "responses"}


def check_schema(schema: dict[str, Any]) -> None:
    """Raise ApiError for what is no JSON Schema."""
    try:
        jsonschema.Draft202012Validator.check_schema(schema)
    except jsonschema.SchemaError as error:
        message = f"is no JSON Schema: {error.message}"
        raise ApiError(400, message, param="data_source_config.item_schema") from error


def read_rows(errand: Errand) -> list[Wire]:
    """Rows as {"item": ..., "sample": ...}. Raises DataError where none is there, StorageError."""
    source = errand.row.request["data_source"]["source"]
    if source["type"] == "file_content":
        found: list[Wire] = source["content"]
    else:
        with errand.service.files.local(source["id"]).open("rb") as lines:
            numbered = enumerate(lines, start=1)
            found = [_row(line, number) for number, line in numbered if line.strip()]
    if not found:
        raise DataError("holds no rows", where="data_source.source")
    return found


def _row(line: bytes, number: int) -> Wire:
    value: Any = None
    with suppress(ValueError, RecursionError):
        value = json.loads(line)
    if not isinstance(value, dict) or not isinstance(value.get("item"), dict):
        raise DataError(
            "is no row of an eval", where=f"line {number}",
            accepted='{"item": {...}} and where answers are given {"sample": {...}}',
        )  # fmt: skip
    return {"item": value["item"], "sample": value.get("sample")}


def wrong_with(item: Body, schema: dict[str, Any]) -> str:
    """What of a row is not as the schema says, or nothing."""
    found = jsonschema.Draft202012Validator(schema).iter_errors(item)
    first = min(found, key=lambda error: list(map(str, error.path)), default=None)
    if first is None:
        return ""
    place = ".".join(["item", *map(str, first.absolute_path)])
    return f"{place}: {first.message}"


def request_of(data_source: Body, item: Body) -> Wire:
    """The chat that a row asks. Raises MissingError where it does not hold what is asked with."""
    wanted, known = data_source["input_messages"], {"item": item}
    if wanted["type"] == "template":
        messages: Any = [
            {"role": turn["role"], "content": fill(_text(turn["content"]), known)}
            for turn in wanted["template"]
        ]
    else:
        messages = look_up(wanted["item_reference"], known)
        if not isinstance(messages, list):
            raise MissingError(f"{wanted['item_reference']} is no list of messages")
    params = {k: v for k, v in data_source["sampling_params"].items() if v is not None}
    return {"model": data_source["model"], "messages": messages, **params}


def _text(content: Any) -> str:
    parts = content if isinstance(content, list) else [content]
    return "\n".join(part if isinstance(part, str) else part["text"] for part in parts)
