"""Files of the cache: folders that exist whole or not at all, and remembered hashes.

A cache entry is made in a temporary folder beside its place and renamed into it. A process killed
half-way leaves only a temporary folder; two processes making the same entry both finish, and the
first one's stays.
"""

import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from luthier.errors import StorageError

STALE_SECONDS = 24 * 3600
"""Age at which a temporary folder is taken for the remains of a killed process."""


def make_folder(place: Path, build: Callable[[Path], None]) -> Path:
    """The folder at `place`, made by `build` in a temporary folder when it is not there yet."""
    if place.is_dir():
        return place
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        _remove_stale(place)
        temporary = Path(tempfile.mkdtemp(prefix=f".{place.name}.", dir=place.parent))
        try:
            build(temporary)
            _open_up(temporary, place.parent.stat().st_mode)
            _rename(temporary, place)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise unwritable(place.parent, error) from error
    return place


def file_sha256(path: Path, cache: Path) -> str:
    """SHA-256 of a file's bytes, remembered by path, size and times of change."""
    stat = path.stat()
    identity = f"{path.resolve()}\0{stat.st_size}\0{stat.st_mtime_ns}\0{stat.st_ctime_ns}"
    record = cache / "hashes" / hashlib.sha256(identity.encode()).hexdigest()
    if record.is_file():
        return record.read_text(encoding="ascii")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    try:
        record.parent.mkdir(parents=True, exist_ok=True)
        temporary = record.with_name(f".{record.name}.{os.getpid()}")
        temporary.write_text(digest, encoding="ascii")
        temporary.replace(record)
    except OSError as error:
        raise unwritable(record.parent, error) from error
    return digest


def unwritable(folder: Path, error: OSError) -> StorageError:
    """What is raised when the cache cannot be written."""
    return StorageError(
        f"cannot be written: {error}",
        where=str(folder),
        advice="free some space, or name another folder in runtime.cache",
    )


def _rename(temporary: Path, place: Path) -> None:
    try:
        temporary.rename(place)
    except OSError:
        if not place.is_dir():  # otherwise another process made the same entry first
            raise


def _remove_stale(place: Path) -> None:
    for path in place.parent.glob(f".{place.name}.*"):
        if time.time() - path.stat().st_mtime > STALE_SECONDS:
            shutil.rmtree(path, ignore_errors=True)


def _open_up(folder: Path, mode: int) -> None:
    """Give what is private (temporary folders, safetensors files) the cache's own permissions."""
    folder.chmod(mode & 0o777)
    for path in folder.iterdir():
        if path.is_file() and not path.is_symlink():
            path.chmod(mode & 0o666)
