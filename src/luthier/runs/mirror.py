"""Runs copied to where other machines find them: any URL that fsspec knows (s3://, gs://, file://).

For clusters whose nodes share no disk. A run's folder is the truth, so copying it is enough. A
file is sent when it has changed, what was removed is removed last: a copy broken off in the middle
has a damaged newest checkpoint at most, and the one before it.
"""

import shutil
from collections.abc import Callable
from functools import wraps
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from luthier.errors import ConfigError, StorageError, missing_package
from luthier.runs.files import tidy
from luthier.runs.workspace import RECORD

P = ParamSpec("P")
R = TypeVar("R")

RUNS = "runs"


def _said(function: Callable[P, R]) -> Callable[P, R]:
    """Errors of the storage, whatever library they come from, as StorageError."""

    @wraps(function)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except (OSError, ValueError) as error:
            raise StorageError(
                f"cannot be used: {error}",
                where=str(args[0]),
                advice="check the address and the credentials, and run the same command again",
            ) from error

    return guarded


class Mirror:
    """The runs of a workspace at a URL."""

    def __init__(self, url: str, workspace: Path) -> None:
        """Raises ConfigError when the kind of URL is not known, or its package is missing."""
        if find_spec("fsspec") is None:
            raise missing_package("fsspec", "ray", where="--storage")
        fsspec: Any = import_module("fsspec.core")
        try:
            self._files, self._root = fsspec.url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise ConfigError(
                f"cannot be used: {error}",
                where=f"--storage {url}",
                accepted="a URL that fsspec knows, such as s3://bucket/folder",
            ) from error
        self._url, self._workspace = url, workspace
        self._sent: dict[str, tuple[int, int]] = {}

    def __str__(self) -> str:
        return self._url

    @_said
    def push(self, run_id: str) -> None:
        """Send what has changed in a run's folder."""
        folder = self._workspace / RUNS / run_id
        files = {
            str(file.relative_to(folder)): file
            for file in sorted(folder.rglob("*"))
            if file.is_file() and not any(p.startswith(".") for p in file.relative_to(folder).parts)
        }
        # The record last: what it says is there, is there.
        for name in sorted(files, key=lambda name: name == RECORD):
            stat = files[name].stat()
            key, state = f"{run_id}/{name}", (stat.st_size, stat.st_mtime_ns)
            if self._sent.get(key) != state:
                target = f"{self._root}/{RUNS}/{key}"
                self._files.makedirs(target.rpartition("/")[0], exist_ok=True)
                self._files.put_file(str(files[name]), target)
                self._sent[key] = state
        for name in self._names(run_id) - files.keys():
            self._files.rm_file(f"{self._root}/{RUNS}/{run_id}/{name}")

    @_said
    def pull(self) -> None:
        """Fetch the runs that are further there than here."""
        start = f"{self._root}/{RUNS}"
        self._files.invalidate_cache()
        if not self._files.exists(start):
            return
        for place in self._files.ls(start, detail=False):
            run_id = place.rstrip("/").rpartition("/")[2]
            names = self._names(run_id)
            here = self._workspace / RUNS / run_id
            if RECORD in names and _progress(names) > _progress(_local_names(here)):
                self._fetch(run_id, names, here)

    def _fetch(self, run_id: str, names: set[str], here: Path) -> None:
        """A run's folder, in place of the one that is here."""
        unfinished = here.with_name(f".{run_id}.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        for name in sorted(names):
            target = unfinished / name
            target.parent.mkdir(parents=True, exist_ok=True)
            self._files.get_file(f"{self._root}/{RUNS}/{run_id}/{name}", str(target))
        shutil.rmtree(here, ignore_errors=True)
        unfinished.rename(here)
        tidy(here, nested=True)

    def _names(self, run_id: str) -> set[str]:
        place = f"{self._root}/{RUNS}/{run_id}"
        self._files.invalidate_cache()
        if not self._files.exists(place):
            return set()
        return {found.partition(f"{RUNS}/{run_id}/")[2] for found in self._files.find(place)}

    @_said
    def write(self, name: str, content: str) -> None:
        """Put a small text beside the runs."""
        self._files.makedirs(self._root, exist_ok=True)
        self._files.pipe_file(f"{self._root}/{name}", content.encode())

    @_said
    def read(self, name: str) -> str:
        """The text put there."""
        self._files.invalidate_cache()
        found: bytes = self._files.cat_file(f"{self._root}/{name}")
        return found.decode()


def _local_names(folder: Path) -> set[str]:
    return {str(f.relative_to(folder)) for f in folder.rglob("*") if f.is_file()}


def _progress(names: set[str]) -> tuple[bool, str, bool]:
    """How far a run's folder has come: with a report, then by its newest checkpoint."""
    steps = [name.split("/")[1] for name in names if name.startswith("checkpoints/step-")]
    return "report.json" in names, max(steps, default=""), RECORD in names
