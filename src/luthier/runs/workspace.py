"""A workspace: a folder of runs, and a database that finds them.

Each run has a folder, and the folder is the truth: `run.json` holds its record. The database is an
index over these records that can be rebuilt from them at any time.
"""

import difflib
import random
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from luthier.errors import ConfigError, StorageError
from luthier.runs.files import atomic_folder, storing, tidy, write_atomically
from luthier.runs.locks import instant_lock, is_locked, waiting_lock
from luthier.runs.records import UNFINISHED, RunRecord, Status, read_record

if TYPE_CHECKING:
    from luthier.runs.database import Database

Clock = Callable[[], datetime]

RECORD = "run.json"
LOCK = ".lock"
_RANDOM = random.SystemRandom()


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
        write_atomically(self.path(RECORD), self.record.to_json())
        self._workspace.index(self.record)

    def finish(self, status: Status, **changes: Any) -> None:
        """Record how the run ended."""
        self.update(status=status, finished_at=self._workspace.now(), **changes)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other processes from working on this run; the system frees it when we die.

        Removes what killed writers left half-written. Raises ConfigError when another process
        works on the run.
        """
        with instant_lock(self.path(LOCK)):
            tidy(self.folder, nested=True)
            yield


class Workspace:
    """A folder of runs with its database. Use `Workspace.open`."""

    def __init__(self, folder: Path, database: "Database", clock: Clock) -> None:
        self.folder, self._database, self._clock = folder, database, clock
        self.unreadable: tuple[StorageError, ...] = ()
        """What was wrong with the records that the latest listing left out."""

    @classmethod
    def open(cls, folder: Path, url: str = "", clock: Clock = utc_now) -> "Workspace":
        """Open or make a workspace; `url` names a database other than SQLite in the folder."""
        from luthier.runs.database import Database

        with storing(folder):
            (folder / "runs").mkdir(parents=True, exist_ok=True)
        # Two processes that make the tables at once would both fail.
        with waiting_lock(folder / LOCK):
            tidy(folder / "runs")
            database = Database(url or f"sqlite:///{folder / 'luthier.db'}")
            workspace = cls(folder, database, clock)
            if database.was_empty:
                workspace.rebuild()
        return workspace

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
        with waiting_lock(self.folder / LOCK):
            run_id = self._new_id(name)
            record = RunRecord(
                id=run_id, name=name, status="created", created_at=self.now(), **identity
            )
            folder = self.folder / "runs" / run_id
            with atomic_folder(folder) as unfinished:
                for file, content in files.items():
                    write_atomically(unfinished / file, content)
                write_atomically(unfinished / RECORD, record.to_json())
        run = Run(folder, record, self)
        self.index(record)
        return run

    def _new_id(self, name: str) -> str:
        stamp = self._clock().strftime("%Y%m%d-%H%M%S")
        safe = re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-")[:64] or "run"
        while True:
            # The system's generator: a training that seeds the global one would make equal ids.
            letters = "".join(_RANDOM.choices("abcdefghjkmnpqrstuvwxyz23456789", k=4))
            run_id = f"{stamp}-{safe}-{letters}"
            if not (self.folder / "runs" / run_id).exists():
                return run_id

    def list(self) -> list[Run]:
        """All runs whose record can be read, newest first; `unreadable` names the others."""
        with storing(self.folder):
            places = sorted((self.folder / "runs").glob(f"*/{RECORD}"), reverse=True)
        runs, unreadable = [], []
        for place in places:
            try:
                runs.append(self._read(place.parent))
            except StorageError as error:
                unreadable.append(error)
        # One damaged file must not keep all other runs from being found or resumed.
        self.unreadable = tuple(unreadable)
        return runs

    def _read(self, folder: Path) -> Run:
        record = read_record(folder / RECORD)
        if record.status == "running" and not is_locked(folder / LOCK):
            # Killed before it could say so.
            record = replace(record, status="interrupted")
        return Run(folder, record, self)

    def find(self, wanted: str) -> Run:
        """The run with this id, beginning of an id, name (the newest) or folder.

        Raises ConfigError when there is none, or several begin like this.
        """
        folder = Path(wanted)
        with storing(folder):
            is_run = bool(wanted) and (folder / RECORD).is_file()
        if is_run:
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
        return self._newest((recipe_hash, data_fingerprint, model_sha256), UNFINISHED)

    def finished(self, recipe_hash: str, data_fingerprint: str, model_sha256: str) -> Run | None:
        """The newest run of the same recipe, data and model that has finished."""
        return self._newest((recipe_hash, data_fingerprint, model_sha256), ("finished",))

    def _newest(self, wanted: tuple[str, str, str], statuses: Collection[str]) -> Run | None:
        for run in self.list():
            record = run.record
            found = (record.recipe_hash, record.data_fingerprint, record.model_sha256)
            if found == wanted and record.status in statuses:
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
