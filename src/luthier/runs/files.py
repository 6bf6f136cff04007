"""Files that are written whole or not at all, and a log of lines that survives a crash."""

import errno
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from luthier.errors import StorageError

ADVICE = {
    errno.ENOSPC: "free some disk space and run the same command again",
    errno.EDQUOT: "free some of your disk quota and run the same command again",
    errno.EFBIG: "raise the limit on file sizes (ulimit -f) and run the same command again",
    errno.EACCES: "choose another folder in runtime.workspace, or change its permissions",
    errno.EPERM: "choose another folder in runtime.workspace, or change its permissions",
    errno.EROFS: "choose another folder in runtime.workspace",
}


def storage_error(path: Path, error: OSError) -> StorageError:
    """What went wrong with a path, and what to do."""
    advice = ADVICE.get(error.errno or 0, "")
    return StorageError(
        f"cannot be written: {error.strerror or error}", where=str(path), advice=advice
    )


def write_atomically(path: Path, content: str | bytes) -> None:
    """Replace a file's content; a crash leaves the old or the new, never a part.

    Raises StorageError.
    """
    data = content.encode("utf-8") if isinstance(content, str) else content
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with unfinished.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise storage_error(path, error) from error


class JsonLines:
    """A log of JSON objects, one a line. A line cut short by a crash is not a line."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, entry: dict[str, Any]) -> None:
        """Add one line. Raises StorageError."""
        line = json.dumps(entry, ensure_ascii=False, separators=(",", ":")) + "\n"
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab") as file:
                file.write(line.encode("utf-8"))
        except OSError as error:
            raise storage_error(self.path, error) from error

    def read(self) -> Iterator[dict[str, Any]]:
        """Every whole line."""
        if not self.path.exists():
            return
        for line in self.path.read_bytes().split(b"\n")[:-1]:
            try:
                yield json.loads(line)
            except ValueError:
                continue  # what a crash left of a line, continued by the next append

    def keep(self, is_kept: Callable[[dict[str, Any]], bool]) -> None:
        """Remove the lines that are not kept, and what a crash left of one."""
        if self.path.exists():
            kept = [json.dumps(e, ensure_ascii=False) for e in self.read() if is_kept(e)]
            write_atomically(self.path, "".join(f"{line}\n" for line in kept))
