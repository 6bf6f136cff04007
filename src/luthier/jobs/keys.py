"""Keys of clients: told once, kept as hashes, good for some scopes, until revoked."""

import hashlib
import time
from collections.abc import Callable, Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from luthier.errors import ConfigError
from luthier.jobs.ids import new_id
from luthier.jobs.tables import AuditRow, KeyRow
from luthier.runs.database import Answer, Database

SCOPES = {
    "read": "list and read files, jobs, models",
    "tune": "upload files, start and stop jobs, delete what was made",
    "infer": "ask models",
    "admin": "permissions of checkpoints, and everything else",
}
"""What a key may be good for; `admin` includes the others."""

WORD = "sk-luthier-"
SECRET_LETTERS = 48
"""286 bits: too many to guess, so that a plain hash keeps them safe."""


class Keys:
    """The keys of a database, and the record of what was done with them."""

    def __init__(
        self, database: Database, clock: Callable[[], float] = time.time, patience: float = 15.0
    ) -> None:
        self._database, self._clock, self._patience = database, clock, patience

    def create(
        self, name: str, scopes: Sequence[str], requests_per_minute: int | None = None
    ) -> tuple[KeyRow, str]:
        """A new key, and its secret, which nobody can tell again. Raises ConfigError."""
        if not scopes or (unknown := [scope for scope in scopes if scope not in SCOPES]):
            found = f"unknown scope {unknown[0]}" if scopes else "has no scope"
            raise ConfigError(found, where=name, accepted=f"some of {', '.join(SCOPES)}")
        secret = new_id(WORD, SECRET_LETTERS)
        row = KeyRow(
            id=new_id("key_"), created_at=int(self._clock()), name=name, sha256=_hash(secret),
            hint=f"...{secret[-4:]}", scopes={"list": sorted(set(scopes))},
            requests_per_minute=requests_per_minute, revoked_at=None,
        )  # fmt: skip
        self._write(lambda session: session.add(row))
        return row, secret

    def find(self, secret: str) -> KeyRow | None:
        """The key with this secret, unless it is revoked."""
        query = select(KeyRow).where(KeyRow.sha256 == _hash(secret), KeyRow.revoked_at.is_(None))
        return self._read(lambda session: session.scalar(query))

    def list(self) -> Sequence[KeyRow]:
        """All keys, also revoked ones, oldest first."""
        return self._read(lambda s: s.scalars(select(KeyRow).order_by(KeyRow.seq)).all())

    def revoke(self, key: str) -> bool:
        """Refuse a key from now on, by id or name; false where there is no such one."""

        def work(session: Session) -> bool:
            query = select(KeyRow).where((KeyRow.id == key) | (KeyRow.name == key))
            rows = session.scalars(query.where(KeyRow.revoked_at.is_(None))).all()
            for row in rows:
                row.revoked_at = int(self._clock())
            return bool(rows)

        return self._write(work)

    def note(self, key_id: str, action: str, subject: str, request_id: str) -> None:
        """Record who did what that changes something."""
        row = AuditRow(
            id=new_id("audit_"), created_at=int(self._clock()), key_id=key_id, action=action,
            subject=subject, request_id=request_id,
        )  # fmt: skip
        self._write(lambda session: session.add(row))

    def record(self, limit: int) -> Sequence[AuditRow]:
        """What was done last, newest first."""
        query = select(AuditRow).order_by(AuditRow.seq.desc()).limit(limit)
        return self._read(lambda session: session.scalars(query).all())

    def _write(self, work: Callable[[Session], Answer]) -> Answer:
        return self._database.transact(work, patience=self._patience)

    def _read(self, work: Callable[[Session], Answer]) -> Answer:
        return self._database.transact(work, patience=self._patience, reads=True)


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
