"""One process at a time: a lock on a file that the system itself gives back.

The lock is `flock` on an open file, so it ends with its holder, also when that is killed; the file
stays and means nothing by itself. It holds between the processes of one machine.
"""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from luthier.errors import ConfigError
from luthier.runs.files import storing

PATIENCE = 0.5
"""Seconds to try for: a listing that looks whether a lock is held holds it for an instant."""


@contextmanager
def waiting_lock(place: Path) -> Iterator[None]:
    """Hold the lock during the block, after waiting for whoever has it."""
    with _opened(place) as descriptor:
        with storing(place):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield


@contextmanager
def instant_lock(place: Path) -> Iterator[None]:
    """Hold the lock during the block; ConfigError when another process has it."""
    with _opened(place) as descriptor:
        with storing(place):
            _take_soon(descriptor, place)
        _sign(descriptor)
        yield


def is_locked(place: Path) -> bool:
    """Whether somebody holds the lock at this moment."""
    if not place.exists():
        return False
    with storing(place):
        descriptor = os.open(place, os.O_RDONLY)
    try:
        return not _takes(descriptor, fcntl.LOCK_SH)
    finally:
        os.close(descriptor)


@contextmanager
def _opened(place: Path) -> Iterator[int]:
    with storing(place):
        descriptor = os.open(place, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _take_soon(descriptor: int, place: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while not _takes(descriptor, fcntl.LOCK_EX):
        if time.monotonic() > deadline:
            raise _held_by_another(place)
        time.sleep(0.02)


def _takes(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _sign(descriptor: int) -> None:
    # The number only serves the message below: a full disk must not keep anyone from the lock.
    with suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)


def _held_by_another(place: Path) -> ConfigError:
    holder = place.read_text(encoding="ascii", errors="replace").strip() or "unknown"
    return ConfigError(
        f"another process (number {holder}) is working on this run",
        where=place.parent.name,
        advice="wait for it, or change the recipe to start another run",
    )
