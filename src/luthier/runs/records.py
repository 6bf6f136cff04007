"""The record of a run: what it was told, what it used, how far it came and what came out."""

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from luthier.errors import StorageError
from luthier.runs.files import storing

Status = Literal["created", "running", "interrupted", "failed", "finished"]
UNFINISHED: tuple[Status, ...] = ("created", "running", "interrupted", "failed")


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One run. Times are UTC in ISO 8601."""

    id: str
    name: str
    status: Status
    created_at: str
    recipe_hash: str
    data_fingerprint: str
    data_files: dict[str, str]
    """Path as given -> SHA-256."""
    model_source: str
    model_revision: str
    model_sha256: str
    finished_at: str = ""
    decision: str = ""
    metric: str = ""
    before: float | None = None
    """The primary metric of the strongest prompt."""
    after: float | None = None
    """The primary metric of the tuned model."""
    error: str = ""

    def to_json(self) -> str:
        """The record as JSON text."""
        return json.dumps(asdict(self), indent=1, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str, where: str) -> "RunRecord":
        """The record that `to_json` wrote; raises StorageError on anything else."""
        try:
            content: dict[str, Any] = json.loads(text)
            names = {field.name for field in fields(cls)}
            return cls(**{key: value for key, value in content.items() if key in names})
        except (ValueError, TypeError, AttributeError) as error:
            raise StorageError(f"is no record of a run: {error}", where=where) from error


def read_record(place: Path) -> RunRecord:
    """Read a run.json. Raises StorageError when it cannot be read or is no record."""
    with storing(place):
        content = place.read_bytes()
    # What is not UTF-8 becomes text that is not JSON, and is reported as such.
    return RunRecord.from_json(content.decode("utf-8", "replace"), str(place))
