"""A finished system, all answers of one, or what it knows, as JSON text and back.

`from_json(to_json(result)) == result`, to the last bit of every number. Knows no files.
"""

import json
from dataclasses import dataclass, fields
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from luthier.errors import EvaluationError
from luthier.evaluation.general import Knowledge
from luthier.evaluation.values import General, Prediction, SystemResult


@dataclass(frozen=True, slots=True)
class Answers:
    """What a system answered to all rows, and the seconds it took."""

    predictions: tuple[Prediction, ...]
    seconds: float


Kept = TypeVar("Kept", SystemResult, Answers, Knowledge, General)


def to_json(kept: SystemResult | Answers | Knowledge | General) -> str:
    """The result as one JSON object, ASCII only, because an answer may hold half a surrogate."""
    # Answers are kept before anybody looks whether their losses are numbers.
    return json.dumps(kept, default=_fields, allow_nan=isinstance(kept, Answers))


def _fields(value: Any) -> dict[str, Any]:
    return {field.name: getattr(value, field.name) for field in fields(value)}


def from_json(text: str, kind: type[Kept], *, where: str = "recorded result") -> Kept:
    """What `to_json` wrote; raises EvaluationError on anything else."""
    try:
        return TypeAdapter(kind).validate_python(json.loads(text))
    except (ValueError, RecursionError) as error:
        found = (
            f"{error.error_count()} fields are missing or wrong"
            if isinstance(error, ValidationError)
            else f"not JSON: {error}"
        )
        raise EvaluationError(
            found,
            where=where,
            accepted="a result as this version writes it",
            advice="delete it; the system is then evaluated again",
        ) from error
