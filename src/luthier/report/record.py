"""report.json: everything the page says and all it leaves out, in a stable order.

`to_json` and `read_report` are inverse to each other. Keys stand in the order of the values'
fields, names inside of facts in alphabetical order. A number that is not finite has no form in
JSON and becomes the text "NaN", "Infinity" or "-Infinity", which reads back as that number
wherever a number is due.
"""

import dataclasses
import math
from datetime import datetime
from typing import Any

from pydantic import TypeAdapter, ValidationError

from luthier.errors import DataError
from luthier.report.values import ReportInput

SCHEMA = "luthier-report"
VERSION = 1

_ADAPTER = TypeAdapter(ReportInput)


def to_json(report: ReportInput) -> dict[str, Any]:
    """The report as plain JSON values, beginning with the name and version of its schema."""
    return {"schema": SCHEMA, "version": VERSION, **_plain(report)}


def read_report(document: dict[str, Any]) -> ReportInput:
    """The report that `to_json` wrote; DataError when it is of another kind or version."""
    found = (document.get("schema"), document.get("version"))
    if found != (SCHEMA, VERSION):
        raise DataError(
            f"schema is {found[0]!r}, version {found[1]!r}",
            where="report.json",
            accepted=f"schema {SCHEMA!r}, version {VERSION}",
            advice="write the report again with: luthier report RUN",
        )
    content = {key: value for key, value in document.items() if key not in ("schema", "version")}
    try:
        return _ADAPTER.validate_python(content)
    except ValidationError as error:
        raise DataError(
            "is damaged",
            where="report.json",
            advice="write the report again with: luthier report RUN",
            details=[f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()],
        ) from error


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, str | int):
        return value
    if dataclasses.is_dataclass(value):
        return {each.name: _plain(getattr(value, each.name)) for each in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(name): _plain(value[name]) for name in sorted(value)}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value
