"""A finished system as JSON text and back, so that a resumed run need not ask again.

`from_json(to_json(result)) == result`, to the last bit of every number. Knows no files.
"""

import json
from dataclasses import asdict

from pydantic import TypeAdapter, ValidationError

from luthier.errors import EvaluationError
from luthier.evaluation.values import SystemResult

_SYSTEM = TypeAdapter(SystemResult)


def to_json(result: SystemResult) -> str:
    """The result as one JSON object, ASCII only, because an answer may hold half a surrogate."""
    return json.dumps(asdict(result), allow_nan=False)


def from_json(text: str, *, where: str = "recorded result") -> SystemResult:
    """The result that `to_json` wrote; raises EvaluationError on anything else."""
    try:
        return _SYSTEM.validate_python(json.loads(text))
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
