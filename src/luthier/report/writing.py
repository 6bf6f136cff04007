"""A report on disk: report.html and report.json, each there whole or not at all."""

import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from luthier.errors import StorageError
from luthier.report.page import render_html
from luthier.report.record import to_json
from luthier.report.values import ReportInput


@dataclass(frozen=True, slots=True)
class ReportPaths:
    """Where a report was written."""

    html: Path
    json: Path


def write_report(report: ReportInput, folder: Path) -> ReportPaths:
    """Write the page and its JSON into a folder, replacing what was there."""
    paths = ReportPaths(folder / "report.html", folder / "report.json")
    document = json.dumps(to_json(report), ensure_ascii=False, allow_nan=False)
    page = render_html(report)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _replace(paths.json, document + "\n")
        _replace(paths.html, page)
    except OSError as error:
        raise StorageError(
            f"cannot be written: {error.strerror or error}",
            where=str(folder),
            accepted="a folder with room that this user may write to",
            advice="free some space or name another folder",
        ) from error
    return paths


def _replace(path: Path, content: str) -> None:
    """Write beside the file and move over it, so that a reader never sees half a report."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    temporary = Path(name)
    try:
        # A lone surrogate, which JSON data can hold, has no UTF-8 form; its escape is valid JSON.
        with os.fdopen(handle, "wb") as file:
            file.write(content.encode("utf-8", "backslashreplace"))
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
