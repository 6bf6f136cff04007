"""Contents by name: in a folder, or at any URL that fsspec knows (s3://, gs://).

A name is made by us, never by a client. What is kept appears whole or not at all: a local file is
renamed into its place, an object is put at once.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from luthier.errors import ConfigError, LuthierError, StorageError
from luthier.runs.files import atomic_file, storage_error

Answer = TypeVar("Answer")
PROBE = ".probe"
"""Written where one must ask whether anything could be."""


class Storage:
    """Contents at a URL; what is worked on is kept in a folder of this machine, too."""

    def __init__(self, url: str, scratch: Path) -> None:
        """Raises ConfigError when the kind of URL is not known, or its package is missing."""
        fsspec: Any = import_module("fsspec.core")
        try:
            self._remote, self._root = fsspec.url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise ConfigError(
                f"cannot be used: {error}",
                where=f"--storage {url}",
                accepted="a folder, or a URL that fsspec knows, such as s3://bucket/folder",
            ) from error
        self.url = url
        self.folder: Path | None = None
        """The folder, where it is one of this machine's."""
        if type(self._remote).__name__ == "LocalFileSystem":
            self.folder = Path(self._root)
            self._guarded(lambda: Path(self._root).mkdir(parents=True, exist_ok=True))
        self._fetched: set[str] = set()
        """Folders of which all is on this machine."""
        self.scratch = scratch
        """For what is not whole yet, and for copies."""
        self._guarded(lambda: scratch.mkdir(parents=True, exist_ok=True))

    def check(self) -> None:
        """Raise StorageError where nothing could be kept now."""

        def look() -> None:
            if self.folder is None:
                self._remote.pipe_file(f"{self._root}/{PROBE}", b"")
            elif not (self.folder.is_dir() and os.access(self.folder, os.W_OK)):
                raise NotADirectoryError(f"{self.folder} is no folder that can be written to")

        self._guarded(look)

    def keep(self, name: str, source: Path) -> None:
        """Move a file of this machine here. Raises StorageError."""

        def put() -> None:
            if self.folder is None:
                self._remote.put_file(str(source), f"{self._root}/{name}")
                source.unlink()
                return
            place = self.folder / name
            place.parent.mkdir(parents=True, exist_ok=True)
            with atomic_file(place) as unfinished:
                shutil.move(source, unfinished)

        self._guarded(put)

    @contextmanager
    def open(self, name: str) -> Iterator[BinaryIO]:
        """Read it from its beginning. Raises StorageError."""
        path = f"{self._root}/{name}"
        file: BinaryIO = self._guarded(lambda: self._remote.open(path, "rb"))
        try:
            yield file
        finally:
            file.close()

    def local(self, name: str) -> Path:
        """A path on this machine that holds it. Raises StorageError."""
        if self.folder is not None:
            return self.folder / name
        place = self.scratch / "copies" / name
        if not place.is_file():
            place.parent.mkdir(parents=True, exist_ok=True)
            with atomic_file(place) as unfinished:
                path = f"{self._root}/{name}"
                self._guarded(lambda: self._remote.get_file(path, str(unfinished)))
        return place

    def local_folder(self, name: str, *, but: str = "") -> Path:
        """A folder on this machine with all that is kept in a folder, except for one within it.

        Raises StorageError.
        """
        if self.folder is not None:
            return self.folder / name
        place = f"{self._root}/{name}"
        if place not in self._fetched:

            def look() -> list[str]:
                self._remote.invalidate_cache()
                return [str(found) for found in self._remote.find(place)]

            for path in self._guarded(look):
                within = path.partition(f"{name}/")[2]
                if not (but and within.startswith(f"{but}/")):
                    self.local(f"{name}/{within}")
            self._fetched.add(place)
        return self.scratch / "copies" / name

    def remove(self, name: str) -> None:
        """Forget it; nothing happens where there is none. Raises StorageError."""

        def forget() -> None:
            if self._remote.exists(f"{self._root}/{name}"):
                self._remote.rm_file(f"{self._root}/{name}")

        self._guarded(forget)
        if self.folder is None:
            (self.scratch / "copies" / name).unlink(missing_ok=True)

    def names(self, folder: str) -> list[str]:
        """What is kept in a folder. Raises StorageError."""

        def look() -> list[str]:
            place = f"{self._root}/{folder}"
            self._remote.invalidate_cache()
            found = self._remote.ls(place, detail=False) if self._remote.exists(place) else []
            return [path.rpartition("/")[2] for path in found]

        return self._guarded(look)

    def _guarded(self, work: Callable[[], Answer]) -> Answer:
        try:
            return work()
        except LuthierError:
            raise
        except OSError as error:
            raise storage_error(Path(self.url), error) from error
        except Exception as error:  # file systems of fsspec have errors of their own
            raise StorageError(
                f"cannot be used: {type(error).__name__}: {error}",
                where=self.url,
                advice="check the address and the credentials",
            ) from error
