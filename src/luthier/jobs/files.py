"""Files that clients send and jobs make: whole, hashed, listed, and removed when nobody needs them.

A content is written first, its row after it: a crash in between leaves a content without a row,
which `tidy` removes. A deleted file stays until the jobs that read it are over.
"""

import hashlib
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO
from uuid import uuid4

from sqlalchemy import ColumnElement, or_, select
from sqlalchemy.orm import Session

from luthier.errors import StorageError
from luthier.jobs.ids import new_id
from luthier.jobs.pages import page_of
from luthier.jobs.states import OVER
from luthier.jobs.storage import Storage
from luthier.jobs.tables import Body, FileRow, JobRow
from luthier.runs.database import Answer, Database
from luthier.runs.files import storing

FOLDER = "files"
ENDINGS = (".jsonl", ".csv")
"""Endings of files that their contents keep; all others have none."""


def _place(row: FileRow) -> str:
    return f"{FOLDER}/{row.id}{next((e for e in ENDINGS if row.filename.endswith(e)), '')}"


@dataclass
class Incoming:
    """A file on its way in: what has come of it so far, on this machine's disk."""

    path: Path
    file: BinaryIO
    size: int = 0
    _hash: Any = field(default_factory=hashlib.sha256)

    def write(self, block: bytes) -> None:
        """Take the next bytes. Raises StorageError."""
        with storing(self.path):
            self.file.write(block)
        self._hash.update(block)
        self.size += len(block)

    def end(self) -> str:
        """No more bytes; the SHA-256 of all. Raises StorageError."""
        with storing(self.path):
            self.file.close()
        return str(self._hash.hexdigest())

    def discard(self) -> None:
        """Forget what has come."""
        with suppress(OSError):  # a full disk, of which it takes nothing any more
            self.file.close()
        self.path.unlink(missing_ok=True)


class Files:
    """The files of a database and a storage."""

    def __init__(
        self,
        database: Database,
        storage: Storage,
        clock: Callable[[], float] = time.time,
        patience: float = 15.0,
    ) -> None:
        self._database, self._storage = database, storage
        self._clock, self._patience = clock, patience

    def begin(self) -> Incoming:
        """Take in a new file. Raises StorageError."""
        folder = self._storage.scratch / "incoming"
        path = folder / uuid4().hex
        with storing(path):
            folder.mkdir(parents=True, exist_ok=True)
            return Incoming(path, path.open("xb"))

    def add(
        self,
        incoming: Incoming,
        filename: str,
        purpose: str,
        *,
        report: Body | None = None,
        expires_after: int | None = None,
    ) -> FileRow:
        """Keep a file that has come whole. Raises StorageError."""
        digest, now = incoming.end(), int(self._clock())
        row = FileRow(
            id=new_id("file-"), created_at=now, purpose=purpose, filename=filename,
            bytes=incoming.size, sha256=digest, status="processed", status_details=None,
            report=report or {}, deleted_at=None,
            expires_at=now + expires_after if expires_after else None,
        )  # fmt: skip
        self._storage.keep(_place(row), incoming.path)

        def work(session: Session) -> None:
            session.add(row)

        self._database.transact(work, patience=self._patience)
        return row

    def add_text(self, text: str, filename: str, purpose: str) -> FileRow:
        """Keep a text of ours as a file. Raises StorageError."""
        incoming = self.begin()
        incoming.write(text.encode())
        return self.add(incoming, filename, purpose)

    def find(self, file_id: str) -> FileRow | None:
        """The file with this id, unless it is deleted or has expired."""
        query = select(FileRow).where(*self._alive(), FileRow.id == file_id)
        return self._read(lambda s: s.scalar(query))

    def list(
        self, *, after: str | None, limit: int, order: str, purpose: str | None
    ) -> tuple[Sequence[FileRow], bool]:
        """Files by age, beginning behind `after`, and whether there are more."""

        is_wanted = (FileRow.purpose == purpose,) if purpose else ()
        wanted = (*self._alive(), *is_wanted)
        return self._read(
            lambda session: page_of(
                session, FileRow, wanted, after=after, limit=limit, is_ascending=order == "asc"
            )
        )

    def _alive(self) -> tuple[ColumnElement[bool], ...]:
        is_fresh = or_(FileRow.expires_at.is_(None), FileRow.expires_at > int(self._clock()))
        return FileRow.deleted_at.is_(None), is_fresh

    def open(self, row: FileRow) -> AbstractContextManager[BinaryIO]:
        """Read a file's content."""
        return self._storage.open(_place(row))

    def local(self, file_id: str) -> Path:
        """A path on this machine with a file's content, also of one deleted since.

        Raises StorageError.
        """
        row = self._read(lambda s: s.scalar(select(FileRow).where(FileRow.id == file_id)))
        if row is None:
            raise StorageError("there is no such file", where=file_id)
        return self._storage.local(_place(row))

    def delete(self, file_id: str) -> bool:
        """Delete a file; its content goes when no unfinished job needs it."""

        def work(session: Session) -> bool:
            row = session.scalar(select(FileRow).where(*self._alive(), FileRow.id == file_id))
            if row is None:
                return False
            row.deleted_at = int(self._clock())
            return True

        return self._database.transact(work, patience=self._patience)

    def tidy(self) -> int:
        """Remove contents of deleted and expired files that no job needs; how many."""
        now = int(self._clock())

        def work(session: Session) -> list[str]:
            is_gone = or_(FileRow.deleted_at.is_not(None), FileRow.expires_at <= now)
            in_use = select(JobRow.seq).where(
                JobRow.status.not_in(OVER),
                or_(JobRow.training_file == FileRow.id, JobRow.validation_file == FileRow.id),
            )
            query = select(FileRow).where(is_gone, ~in_use.exists())
            return [_place(row) for row in session.scalars(query)]

        here = {f"{FOLDER}/{name}" for name in self._storage.names(FOLDER)}
        gone = here & set(self._read(work))
        for place in gone:
            self._storage.remove(place)
        return len(gone)

    def _read(self, work: Callable[[Session], Answer]) -> Answer:
        return self._database.transact(work, patience=self._patience, reads=True)
