"""A workspace: a folder of runs, and a database that finds them.

Each run has a folder, and the folder is the truth: `run.json` holds its record. The database is an
index over these records that can be rebuilt from them at any time.
"""

import difflib
import fcntl
import random
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from luthier.errors import ConfigError, StorageError
from luthier.runs.files import storage_error, write_atomically
from luthier.runs.records import UNFINISHED, RunRecord, Status

if TYPE_CHECKING:
    from luthier.runs.database import Database

Clock = Callable[[], datetime]


def utc_now() -> datetime:
    """Now, in UTC."""
    return datetime.now(UTC)


class Run:
    """A run's folder and record."""

    def __init__(self, folder: Path, record: RunRecord, workspace: "Workspace") -> None:
        self.folder, self.record, self._workspace = folder, record, workspace

    @property
    def id(self) -> str:
        """Name of the folder; sorts by time."""
        return self.record.id

    def path(self, *names: str) -> Path:
        """A file or folder of this run."""
        return self.folder.joinpath(*names)

    def update(self, **changes: Any) -> None:
        """Change the record, in the folder first, then in the index."""
        self.record = replace(self.record, **changes)
        write_atomically(self.path("run.json"), self.record.to_json())
        self._workspace.index(self.record)

    def finish(self, status: Status, **changes: Any) -> None:
        """Record how the run ended."""
        self.update(status=status, finished_at=self._workspace.now(), **changes)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other processes from working on this run; the system frees it when we die.

        Raises ConfigError when another process works on it.
        """
        with self.path(".lock").open("w") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise ConfigError(
                    "another process is working on this run",
                    where=self.id,
                    advice="wait for it, or change the recipe to start another run",
                ) from error
            yield


class Workspace:
    """A folder of runs with its database. Use `Workspace.open`."""

    def __init__(self, folder: Path, database: "Database", clock: Clock) -> None:
        self.folder, self._database, self._clock = folder, database, clock

    @classmethod
    def open(cls, folder: Path, url: str = "", clock: Clock = utc_now) -> "Workspace":
        """Open or make a workspace; `url` names a database other than SQLite in the folder."""
        from luthier.runs.database import Database

        try:
            (folder / "runs").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise storage_error(folder, error) from error
        return cls(folder, Database(url or f"sqlite:///{folder / 'luthier.db'}"), clock)

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    def now(self) -> str:
        """The time for records."""
        return self._clock().isoformat(timespec="seconds")

    def start(self, name: str, files: dict[str, str], **identity: Any) -> Run:
        """Make a run: its folder with `files` (name -> text) in it, its record, its index entry.

        `identity` are the fields of `RunRecord` that say what the run works on.
        """
        run_id = self._new_id(name)
        record = RunRecord(
            id=run_id, name=name, status="created", created_at=self.now(), **identity
        )
        folder = self.folder / "runs" / run_id
        try:
            folder.mkdir(parents=True)
        except OSError as error:
            raise storage_error(folder, error) from error
        try:
            for file, content in files.items():
                write_atomically(folder / file, content)
        except StorageError:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        run = Run(folder, record, self)
        run.update()
        return run

    def _new_id(self, name: str) -> str:
        stamp = self._clock().strftime("%Y%m%d-%H%M%S")
        safe = re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-")[:64] or "run"
        letters = "".join(random.choices("abcdefghjkmnpqrstuvwxyz23456789", k=4))  # noqa: S311
        return f"{stamp}-{safe}-{letters}"

    def list(self) -> list[Run]:
        """All runs, newest first."""
        folders = sorted((self.folder / "runs").glob("*/run.json"), reverse=True)
        return [self._read(path.parent) for path in folders]

    def _read(self, folder: Path) -> Run:
        path = folder / "run.json"
        return Run(folder, RunRecord.from_json(path.read_text("utf-8"), str(path)), self)

    def find(self, wanted: str) -> Run:
        """The run with this id, beginning of an id, name (the newest) or folder.

        Raises ConfigError when there is none, or several begin like this.
        """
        folder = Path(wanted)
        if (folder / "run.json").is_file():
            return self._read(folder)
        runs = self.list()
        same_id = [run for run in runs if run.id == wanted]
        same_name = [run for run in runs if run.record.name == wanted]
        if same_id or same_name:
            return (same_id or same_name)[0]
        begun = [run for run in runs if wanted and run.id.startswith(wanted)]
        if len(begun) == 1:
            return begun[0]
        raise _not_found(wanted, begun, runs, self.folder)

    def resumable(self, recipe_hash: str, data_fingerprint: str, model_sha256: str) -> Run | None:
        """The newest run of the same recipe, data and model that has not finished."""
        wanted = (recipe_hash, data_fingerprint, model_sha256)
        for run in self.list():
            record = run.record
            found = (record.recipe_hash, record.data_fingerprint, record.model_sha256)
            if found == wanted and record.status in UNFINISHED:
                return run
        return None

    def index(self, record: RunRecord) -> None:
        """Bring the database up to a record."""
        from luthier.runs.tables import DatasetRow, ModelRow, RunRow

        columns = {column.name for column in RunRow.__table__.columns}
        values = {key: value for key, value in asdict(record).items() if key in columns}
        with self._database.session() as session:
            if session.get(DatasetRow, record.data_fingerprint) is None:
                session.add(
                    DatasetRow(
                        fingerprint=record.data_fingerprint,
                        files=record.data_files,
                        first_used=record.created_at,
                    )
                )
            if session.get(ModelRow, record.model_sha256) is None:
                session.add(
                    ModelRow(
                        sha256=record.model_sha256,
                        source=record.model_source,
                        revision=record.model_revision,
                        first_used=record.created_at,
                    )
                )
            session.flush()
            session.merge(RunRow(**values))

    def rebuild(self) -> int:
        """Index every run folder again; returns how many there are."""
        runs = self.list()
        for run in runs:
            self.index(run.record)
        return len(runs)


def _not_found(wanted: str, begun: Sequence[Run], runs: Sequence[Run], folder: Path) -> ConfigError:
    if begun:
        return ConfigError(
            f"{len(begun)} runs begin with {wanted!r}",
            where=str(folder),
            advice="give more of the id",
            details=[run.id for run in begun[:10]],
        )
    names = [name for run in runs for name in (run.record.name, run.id)]
    close = difflib.get_close_matches(wanted, names, 1, 0.5)
    return ConfigError(
        f"there is no run {wanted!r}",
        where=str(folder),
        advice=f"did you mean {close[0]}?" if close else "luthier runs list shows them",
    )
