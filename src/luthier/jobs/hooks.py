"""Webhooks: addresses that are told of what has ended, with messages they can check.

A message is noted in the transaction that ends something, and tried until it is taken: an address
hears at least once of everything, however often servers die. Signed as Standard Webhooks says:
HMAC-SHA256 of id, time and body.
"""

import base64
import hashlib
import hmac
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from sqlalchemy import Select, select, update
from sqlalchemy.orm import Session

from luthier.errors import ConfigError
from luthier.jobs.ids import new_id
from luthier.jobs.tables import DeliveryRow, HookRow
from luthier.runs.database import Answer, Database

WAITS = (5, 5 * 60, 30 * 60, 2 * 3600, 5 * 3600, 10 * 3600, 14 * 3600, 20 * 3600, 24 * 3600)
"""Seconds until a message that was not taken is tried again, the first time, the second, ..."""
WORD = "whsec_"


@dataclass(frozen=True, slots=True)
class Due:
    """A message that is to be sent now."""

    delivery: DeliveryRow
    url: str
    secret: str


class Hooks:
    """The addresses of a database, and messages to them."""

    def __init__(
        self, database: Database, clock: Callable[[], float] = time.time, patience: float = 15.0
    ) -> None:
        self._database, self._clock, self._patience = database, clock, patience

    def add(self, url: str) -> HookRow:
        """Tell an address from now on. Raises ConfigError."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username:
            raise ConfigError(
                "is no address of a webhook", where=url,
                accepted="http(s)://HOST/PATH without a password",
            )  # fmt: skip
        secret = WORD + base64.b64encode(secrets.token_bytes(32)).decode()
        row = HookRow(id=new_id("hook_"), created_at=self.now(), url=url, secret=secret)
        self._write(lambda session: session.add(row))
        return row

    def list(self) -> Sequence[HookRow]:
        """Addresses that are told, oldest first."""
        return self._read(lambda session: session.scalars(_told().order_by(HookRow.seq)).all())

    def remove(self, hook: str) -> bool:
        """Tell an address no more, by id or URL; false where there is no such one."""

        def work(session: Session) -> bool:
            rows = session.scalars(_told().where((HookRow.id == hook) | (HookRow.url == hook)))
            found = rows.all()
            for row in found:
                row.removed_at = self.now()
            return bool(found)

        return self._write(work)

    def due(self) -> Sequence[Due]:
        """Messages that are to be sent now; each is given to one who asks, for a while."""

        def work(session: Session) -> list[Due]:
            query = (
                select(DeliveryRow, HookRow)
                .join(HookRow, HookRow.id == DeliveryRow.hook_id)
                .where(DeliveryRow.next_at <= self.now(), HookRow.removed_at.is_(None))
                .order_by(DeliveryRow.next_at)
                .limit(20)
            )
            found = []
            for delivery, hook in session.execute(query):
                later = WAITS[delivery.tries] if delivery.tries < len(WAITS) else None
                claimed = session.execute(
                    update(DeliveryRow)
                    .where(DeliveryRow.seq == delivery.seq, DeliveryRow.tries == delivery.tries)
                    .values(
                        tries=delivery.tries + 1,
                        next_at=None if later is None else self.now() + later,
                    )
                    .execution_options(synchronize_session=False)
                )
                if claimed.rowcount:  # type: ignore[attr-defined]
                    found.append(Due(delivery, hook.url, hook.secret))
            return found

        return self._write(work)

    def sent(self, delivery_id: str) -> None:
        """A message was taken."""
        done = {"sent_at": self.now(), "next_at": None}
        self._write(
            lambda s: s.execute(
                update(DeliveryRow).where(DeliveryRow.id == delivery_id).values(**done)
            )
        )

    def deliveries(self, limit: int = 100) -> Sequence[DeliveryRow]:
        """Messages, newest first."""
        query = select(DeliveryRow).order_by(DeliveryRow.seq.desc()).limit(limit)
        return self._read(lambda session: session.scalars(query).all())

    def now(self) -> int:
        """Unix seconds."""
        return int(self._clock())

    def _write(self, work: Callable[[Session], Answer]) -> Answer:
        return self._database.transact(work, patience=self._patience)

    def _read(self, work: Callable[[Session], Answer]) -> Answer:
        return self._database.transact(work, patience=self._patience, reads=True)


def _told() -> Select[HookRow]:
    return select(HookRow).where(HookRow.removed_at.is_(None))


def announce(session: Session, kind: str, subject: str, now: int) -> None:
    """Note that all addresses are to be told, in the transaction in which it happens."""
    for hook_id in session.scalars(select(HookRow.id).where(HookRow.removed_at.is_(None))):
        session.add(
            DeliveryRow(
                id=new_id("evt_", 32), created_at=now, hook_id=hook_id, type=kind,
                subject=subject, next_at=now,
            )
        )  # fmt: skip


def signature(secret: str, message_id: str, timestamp: int, body: bytes) -> str:
    """What stands in a message's webhook-signature: v1, and its HMAC-SHA256 in base64."""
    key = base64.b64decode(secret.removeprefix(WORD))
    signed = f"{message_id}.{timestamp}.".encode() + body
    return f"v1,{base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()}"
