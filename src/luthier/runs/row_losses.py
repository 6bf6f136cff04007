"""What each training row lost, step by step, in two files of a run's folder.

One says which rows there are, by keys of what they say, so that they are found again in any file or
version of a dataset; the other has a line for every step.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from luthier.errors import StorageError
from luthier.runs.files import JsonLines, storing

LEARNT_ROWS = "learnt-rows.txt"
"""A key a line, in the order training counts rows."""
UNKNOWN = "-"
"""In the place of the key of a row that is none of the dataset's."""
DIGITS = 5


class RowLosses:
    """The losses of a run's training rows."""

    def __init__(self, folder: Path) -> None:
        self._keys = folder / LEARNT_ROWS
        self._lines = JsonLines(folder / "row-losses.jsonl")

    def append(self, step: int, rows: Sequence[int], losses: Sequence[float]) -> None:
        """Note the losses of a step's rows, which are numbers from 0."""
        rounded = [round(loss, DIGITS) for loss in losses]
        self._lines.append({"step": step, "rows": rows, "losses": rounded})

    def forget_after(self, step: int) -> None:
        """Remove what later steps lost: they are done again."""
        self._lines.keep(lambda entry: entry["step"] <= step)

    def keys(self) -> list[str]:
        """Key of each row."""
        if not self._keys.is_file():
            return []
        with storing(self._keys):
            return self._keys.read_text("utf-8").split()

    def steps(self) -> Iterator[tuple[list[int], list[float]]]:
        """Rows and losses of each step. Raises StorageError where a line is none."""
        for entry in self._lines.read():
            rows, losses = entry.get("rows"), entry.get("losses")
            if not isinstance(rows, list) or not isinstance(losses, list):
                raise StorageError(
                    "holds a line without rows and losses", where=str(self._lines.path)
                )
            yield rows, losses
