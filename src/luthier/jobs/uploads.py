"""Files that come in parts: each part is kept as it comes, and all are joined at the end."""

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain

from sqlalchemy import select
from sqlalchemy.orm import Session

from luthier.errors import JobError
from luthier.jobs.files import Files, Incoming
from luthier.jobs.ids import new_id
from luthier.jobs.storage import Storage
from luthier.jobs.tables import PartRow, UploadRow
from luthier.runs.database import Answer, Database

FOLDER = "parts"
OPEN_FOR = 3600
"""Seconds in which an upload must be completed."""
BLOCK = 2**20


class Uploads:
    """The unfinished uploads of a database and a storage."""

    def __init__(
        self,
        database: Database,
        storage: Storage,
        files: Files,
        clock: Callable[[], float] = time.time,
        patience: float = 15.0,
    ) -> None:
        self._database, self._storage, self._files = database, storage, files
        self._clock, self._patience = clock, patience

    def create(
        self, filename: str, purpose: str, size: int, mime_type: str, expires_after: int | None
    ) -> UploadRow:
        """Begin to take in a file of `size` bytes."""
        now = int(self._clock())
        row = UploadRow(
            id=new_id("upload_"), created_at=now, filename=filename, purpose=purpose, bytes=size,
            mime_type=mime_type, status="pending", expires_at=now + OPEN_FOR,
            file_expires_after=expires_after, file_id=None,
        )  # fmt: skip
        self._write(lambda session: session.add(row))
        return row

    def find(self, upload_id: str) -> UploadRow | None:
        """The upload with this id."""
        return self._read(lambda s: s.scalar(select(UploadRow).where(UploadRow.id == upload_id)))

    def add_part(self, upload: UploadRow, incoming: Incoming) -> PartRow:
        """Keep the next part. Raises JobError, StorageError."""
        self._check_open(upload)
        incoming.end()
        row = PartRow(
            id=new_id("part_"), created_at=int(self._clock()), upload_id=upload.id,
            bytes=incoming.size,
        )  # fmt: skip
        self._storage.keep(f"{FOLDER}/{row.id}", incoming.path)

        def work(session: Session) -> None:
            kept = session.scalars(select(PartRow.bytes).where(PartRow.upload_id == upload.id))
            if sum(kept) + incoming.size > upload.bytes:
                raise JobError(
                    f"its parts are larger than its {upload.bytes} bytes", where=upload.id
                )
            session.add(row)

        self._write(work)
        return row

    def join(self, upload: UploadRow, part_ids: Sequence[str], md5: str | None) -> Incoming:
        """The whole file, of its parts in this order.

        Raises JobError where parts are missing or wrong, StorageError.
        """
        self._check_open(upload)
        known = self._parts(upload)
        if missing := [part for part in part_ids if part not in known]:
            raise JobError(f"has no part {missing[0]}", where=upload.id)
        incoming, digest = self._files.begin(), hashlib.md5(usedforsecurity=False)
        try:
            for block in chain.from_iterable(self._blocks(part) for part in part_ids):
                incoming.write(block)
                digest.update(block)
            if incoming.size != upload.bytes:
                raise JobError(
                    f"its parts are {incoming.size} bytes together",
                    where=upload.id,
                    accepted=f"the {upload.bytes} bytes it was created for",
                )
            if md5 and md5.lower() != digest.hexdigest():
                raise JobError(f"its parts have MD5 {digest.hexdigest()}", where=upload.id)
        except BaseException:
            incoming.discard()
            raise
        return incoming

    def _blocks(self, part: str) -> Iterator[bytes]:
        with self._storage.open(f"{FOLDER}/{part}") as file:
            while block := file.read(BLOCK):
                yield block

    def end(self, upload: UploadRow, status: str, file_id: str | None = None) -> UploadRow:
        """It is completed, with this file, or cancelled; its parts go. Raises JobError."""

        def work(session: Session) -> UploadRow:
            row = session.scalar(
                select(UploadRow).where(UploadRow.id == upload.id).with_for_update()
            )
            assert row is not None, "it was found before"
            self._check_open(row)
            row.status, row.file_id = status, file_id
            return row

        found = self._write(work)
        for part in self._parts(upload):
            self._storage.remove(f"{FOLDER}/{part}")
        return found

    def tidy(self) -> int:
        """Give up uploads whose time is over; how many."""
        query = select(UploadRow).where(
            UploadRow.status == "pending", UploadRow.expires_at <= int(self._clock())
        )
        late = self._read(lambda session: session.scalars(query).all())
        for upload in late:
            self._write(partial(_expire, seq=upload.seq))
            for part in self._parts(upload):
                self._storage.remove(f"{FOLDER}/{part}")
        return len(late)

    def _check_open(self, upload: UploadRow) -> None:
        if upload.status != "pending":
            raise JobError(f"is {upload.status}", where=upload.id, accepted="a pending upload")
        if upload.expires_at <= int(self._clock()):
            raise JobError("has expired", where=upload.id, accepted="an upload of the last hour")

    def _parts(self, upload: UploadRow) -> list[str]:
        query = select(PartRow.id).where(PartRow.upload_id == upload.id).order_by(PartRow.seq)
        return list(self._read(lambda session: session.scalars(query).all()))

    def _write(self, work: Callable[[Session], Answer]) -> Answer:
        return self._database.transact(work, patience=self._patience)

    def _read(self, work: Callable[[Session], Answer]) -> Answer:
        return self._database.transact(work, patience=self._patience, reads=True)


def _expire(session: Session, *, seq: int) -> None:
    row = session.get(UploadRow, seq)
    if row is not None and row.status == "pending":
        row.status = "expired"
