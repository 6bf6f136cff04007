"""Files and folders that appear whole or not at all, and a log of lines that survives a crash.

Content comes in; it is written under a hidden name beside its place, synced, and renamed into it. A
process killed at any moment leaves the old content or the new, and perhaps a hidden leftover, which
`tidy` removes. One window is left to it: POSIX cannot swap two folders, so a crash between two
renames leaves the older folder under a hidden name, and `tidy` puts it back. Whatever the system
refuses (disk full, read-only, no permission) becomes a StorageError that says what to do.
"""

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from luthier.errors import LuthierError, StorageError

UNFINISHED = ".unfinished-"
REPLACED = ".replaced-"

_ANOTHER_FOLDER = "change its permissions, or choose a folder you may write to"
_MORE_SPACE = "free some space, then run the same command again"
_REASONS: dict[int, tuple[str, str]] = {
    errno.ENOSPC: ("the disk is full", _MORE_SPACE),
    errno.EDQUOT: ("your disk quota is used up", _MORE_SPACE),
    errno.EFBIG: (
        "the file would grow past the size limit of this process",
        "raise the limit (ulimit -f), then run the same command again",
    ),
    errno.EROFS: ("the file system is read-only", "choose a folder you may write to"),
    errno.EACCES: ("permission denied", _ANOTHER_FOLDER),
    errno.EPERM: ("not permitted", _ANOTHER_FOLDER),
    errno.EEXIST: ("a file stands where a folder is needed", "move it away"),
    errno.ENOTDIR: ("a file stands where a folder is needed", "move it away"),
    errno.EISDIR: ("a folder stands where a file is needed", "move it away"),
    errno.ENOENT: ("not there", "check the path"),
}
"""What the system says -> our words for it, and what to do."""


def storage_error(place: Path, error: OSError) -> StorageError:
    """What the system refused about a path, and what to do."""
    named = str(error.filename or place)
    where = str(place) if UNFINISHED in named or REPLACED in named else named
    reason = (error.strerror or str(error)).lower()
    found, advice = _REASONS.get(error.errno or 0, (reason, "check the disk and the path"))
    return StorageError(found, where=where, advice=advice)


@contextmanager
def storing(place: Path) -> Iterator[None]:
    """Turn what the system refuses inside the block into a StorageError about `place`."""
    try:
        yield
    except LuthierError:
        raise
    except OSError as error:
        raise storage_error(place, error) from error


def write_atomically(place: Path, content: bytes | str) -> None:
    """Write a file, making its folder, so that readers see the old content or all of the new."""
    data = content.encode() if isinstance(content, str) else content
    unfinished = _beside(place, UNFINISHED)
    with storing(place):
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            with unfinished.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            unfinished.replace(place)
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise
        _sync_folder(place.parent)


@contextmanager
def atomic_file(place: Path) -> Iterator[Path]:
    """Give a path to write to; it becomes `place` when the block ends without an error."""
    unfinished = _beside(place, UNFINISHED)
    with storing(place):
        try:
            yield unfinished
            with unfinished.open("rb") as file:
                os.fsync(file.fileno())
            unfinished.replace(place)
        finally:
            unfinished.unlink(missing_ok=True)
        _sync_folder(place.parent)


@contextmanager
def atomic_folder(place: Path) -> Iterator[Path]:
    """Give an empty folder to fill; it becomes `place` when the block ends without an error.

    An older folder there is replaced. What an error leaves half-filled is removed.
    """
    unfinished = _beside(place, UNFINISHED)
    with storing(place):
        place.parent.mkdir(parents=True, exist_ok=True)
        unfinished.mkdir()
        try:
            yield unfinished
            sync_tree(unfinished)
            _put_in_place(unfinished, place)
        except BaseException:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise


def tidy(folder: Path, *, nested: bool = False) -> None:
    """Remove what killed writers left in a folder, and put back a folder they had moved aside.

    Only for those who know that nobody else writes there: the holder of the folder's lock.
    """
    with storing(folder):
        for parent, names, _ in os.walk(folder):
            _tidy_level(Path(parent))
            if not nested:
                return
            names[:] = [name for name in names if not name.startswith((UNFINISHED, REPLACED))]


def _tidy_level(folder: Path) -> None:
    for leftover in sorted(folder.glob(f"{REPLACED}*")):
        _, _, name = leftover.name.removeprefix(REPLACED).partition("-")
        place = folder / name
        if not place.exists():
            leftover.rename(place)
        shutil.rmtree(leftover, ignore_errors=True)
    for leftover in sorted(folder.glob(f"{UNFINISHED}*")):
        if leftover.is_dir():
            shutil.rmtree(leftover)
        else:
            leftover.unlink(missing_ok=True)


def _beside(place: Path, prefix: str) -> Path:
    """A hidden, unique name on the same file system, from which `tidy` can tell the real one."""
    return place.with_name(f"{prefix}{uuid4().hex[:12]}-{place.name}")


def _put_in_place(unfinished: Path, place: Path) -> None:
    replaced = _beside(place, REPLACED)
    is_replacing = place.exists()
    if is_replacing:
        place.rename(replaced)
    try:
        unfinished.rename(place)
    except BaseException:
        if is_replacing:
            replaced.rename(place)
        raise
    _sync_folder(place.parent)
    shutil.rmtree(replaced, ignore_errors=True)


def sync_tree(folder: Path) -> None:
    for parent, _, names in os.walk(folder):
        for name in names:
            with (Path(parent) / name).open("rb") as file:
                os.fsync(file.fileno())
        _sync_folder(Path(parent))


def _sync_folder(folder: Path) -> None:
    # Network and FUSE file systems refuse to sync a folder; the rename is what keeps it whole.
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


class JsonLines:
    """A log of JSON objects, one a line. A line cut short by a crash is not a line."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, entry: dict[str, Any]) -> None:
        """Add one line, in place of what a crash left of one. Raises StorageError."""
        line = _encoded(entry)
        with storing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                _write_line(descriptor, line)
            finally:
                os.close(descriptor)

    def read(self) -> Iterator[dict[str, Any]]:
        """Every whole line; StorageError when one before the last is broken."""
        if not self.path.exists():
            return
        with storing(self.path):
            lines = self.path.read_bytes().split(b"\n")[:-1]
        for number, line in enumerate(lines, 1):
            try:
                yield json.loads(line)
            except ValueError as error:
                if number == len(lines):
                    return
                raise StorageError(
                    "not a line of JSON", where=f"{self.path}:{number}", advice="remove the line"
                ) from error

    def keep(self, is_kept: Callable[[dict[str, Any]], bool]) -> None:
        """Remove the lines that are not kept, and what a crash left of one."""
        if self.path.exists():
            kept = [json.dumps(e, ensure_ascii=False) for e in self.read() if is_kept(e)]
            write_atomically(self.path, "".join(f"{line}\n" for line in kept))


def _encoded(entry: dict[str, Any]) -> bytes:
    """A line of UTF-8; half a surrogate, as models may write, has no form in it and is escaped."""
    try:
        return f"{json.dumps(entry, ensure_ascii=False, separators=(',', ':'))}\n".encode()
    except UnicodeEncodeError:
        return f"{json.dumps(entry, separators=(',', ':'))}\n".encode()


def _write_line(descriptor: int, line: bytes) -> None:
    end = _end_of_last_line(descriptor)
    try:
        os.ftruncate(descriptor, end)
    except OSError as error:
        # A device such as /dev/full has no length to set.
        if error.errno != errno.EINVAL:
            raise
    written = 0
    while written < len(line):
        written += os.pwrite(descriptor, line[written:], end + written)


def _end_of_last_line(descriptor: int) -> int:
    """The byte after the last line end: a writer that died may have left half a line there."""
    size = os.fstat(descriptor).st_size
    if not size or os.pread(descriptor, 1, size - 1) == b"\n":
        return size
    return os.pread(descriptor, size, 0).rfind(b"\n") + 1
