"""Errands: what servers do beside answering, in rows, each done once: batches and runs of evals.

A server holds an errand as a worker holds a job, by a number that grows with each holder; another
one takes it up where its holder has died. Rows that are done are kept, and not done again.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from luthier.errors import JobError
from luthier.jobs.hooks import announce
from luthier.jobs.ids import new_id
from luthier.jobs.pages import page_of
from luthier.jobs.queue import Hold, LostHoldError
from luthier.jobs.tables import Body, ErrandRow, EvalRow, ItemRow
from luthier.runs.database import Answer, Database

OPEN = ("validating", "queued", "in_progress", "finalizing", "cancelling")
"""States in which something is left to be done."""
TOLD = {
    "batch": {"completed": "batch.completed", "failed": "batch.failed",
              "cancelled": "batch.cancelled", "expired": "batch.expired"},
    "eval_run": {"completed": "eval.run.succeeded", "failed": "eval.run.failed",
                 "canceled": "eval.run.canceled"},
}  # fmt: skip
"""Kind -> state -> what webhooks call it."""


class Errands:
    """The errands of a database, and the evals that some are runs of."""

    def __init__(
        self, database: Database, clock: Callable[[], float] = time.time, patience: float = 15.0
    ) -> None:
        self._database, self._clock, self._patience = database, clock, patience

    # What clients do

    def create(self, row: ErrandRow, prefix: str) -> ErrandRow:
        """Keep a new errand."""
        row.id, row.created_at = new_id(prefix, 32), self.now()
        row.times = {row.status: row.created_at}
        self._write(lambda session: session.add(row))
        return row

    def find(self, kind: str, errand_id: str) -> ErrandRow | None:
        """The errand with this id, unless it is deleted."""
        query = select(ErrandRow).where(
            ErrandRow.id == errand_id, ErrandRow.kind == kind, ErrandRow.deleted_at.is_(None)
        )
        return self._read(lambda session: session.scalar(query))

    def list(
        self, kind: str, *, after: str | None, limit: int, is_ascending: bool = False,
        eval_id: str | None = None, status: str | None = None,
    ) -> tuple[Sequence[ErrandRow], bool]:  # fmt: skip
        """Errands by age, and whether there are more."""
        wanted = [ErrandRow.kind == kind, ErrandRow.deleted_at.is_(None)]
        if eval_id is not None:
            wanted.append(ErrandRow.eval_id == eval_id)
        if status is not None:
            wanted.append(ErrandRow.status == status)
        return self._read(
            lambda session: page_of(
                session, ErrandRow, wanted, after=after, limit=limit, is_ascending=is_ascending
            )
        )

    def items(
        self, errand_id: str, *, after: str | None, limit: int, is_ascending: bool = True,
        status: str | None = None,
    ) -> tuple[Sequence[ItemRow], bool]:  # fmt: skip
        """What came of an errand's rows, and whether there is more."""
        wanted = [ItemRow.errand_id == errand_id]
        if status is not None:
            wanted.append(ItemRow.status == status)
        return self._read(
            lambda session: page_of(
                session, ItemRow, wanted, after=after, limit=limit, is_ascending=is_ascending
            )
        )

    def item(self, errand_id: str, item_id: str) -> ItemRow | None:
        """What came of one row."""
        query = select(ItemRow).where(ItemRow.errand_id == errand_id, ItemRow.id == item_id)
        return self._read(lambda session: session.scalar(query))

    def stop(self, errand_id: str, status: str) -> ErrandRow:
        """Let an errand that is under way go into a state. Raises JobError where it is over."""

        def work(session: Session) -> ErrandRow:
            row = session.scalar(
                select(ErrandRow).where(ErrandRow.id == errand_id).with_for_update()
            )
            if row is None or row.status not in OPEN:
                found = row.status if row else "gone"
                raise JobError(f"is {found}, so it cannot become {status}", where=errand_id)
            self._go(session, row, status, {})
            return row

        return self._write(work)

    def delete(self, errand_id: str) -> None:
        """Forget an errand; whoever works on it stops."""
        gone = {"deleted_at": self.now(), "hold": ErrandRow.hold + 1}
        self._write(
            lambda s: s.execute(update(ErrandRow).where(ErrandRow.id == errand_id).values(**gone))
        )

    # Evals

    def add_eval(self, row: EvalRow) -> EvalRow:
        """Keep a new eval."""
        row.id, row.created_at = new_id("eval_", 32), self.now()
        self._write(lambda session: session.add(row))
        return row

    def find_eval(self, eval_id: str) -> EvalRow | None:
        """The eval with this id, unless it is deleted."""
        query = select(EvalRow).where(EvalRow.id == eval_id, EvalRow.deleted_at.is_(None))
        return self._read(lambda session: session.scalar(query))

    def evals(
        self, *, after: str | None, limit: int, is_ascending: bool
    ) -> tuple[Sequence[EvalRow], bool]:
        """Evals by age, and whether there are more."""
        wanted = [EvalRow.deleted_at.is_(None)]
        return self._read(
            lambda session: page_of(
                session, EvalRow, wanted, after=after, limit=limit, is_ascending=is_ascending
            )
        )

    def change_eval(self, eval_id: str, **changes: Any) -> None:
        """Change an eval's name or metadata, or delete it."""
        self._write(
            lambda s: s.execute(update(EvalRow).where(EvalRow.id == eval_id).values(**changes))
        )

    # What servers do

    def open(self) -> Sequence[ErrandRow]:
        """Errands that are not over, oldest first."""
        query = select(ErrandRow).where(ErrandRow.status.in_(OPEN), ErrandRow.deleted_at.is_(None))
        return self._read(lambda s: s.scalars(query.order_by(ErrandRow.seq).limit(100)).all())

    def take(self, row: ErrandRow, worker: str) -> Hold | None:
        """Hold an errand as it was seen; None where another one was faster."""

        def work(session: Session) -> Hold | None:
            taken = session.execute(
                update(ErrandRow)
                .where(
                    ErrandRow.seq == row.seq, ErrandRow.hold == row.hold,
                    ErrandRow.beat == row.beat,
                )
                .values(worker=worker, hold=row.hold + 1)
            )  # fmt: skip
            held = Hold(row.id, worker, row.hold + 1)
            return held if taken.rowcount else None  # type: ignore[attr-defined]

        return self._write(work)

    def beat(self, hold: Hold) -> str:
        """Show that the holder lives; the errand's state. Raises LostHoldError."""

        def work(session: Session) -> str:
            row = _held(session, hold)
            row.beat += 1
            return row.status

        return self._write(work)

    def change(self, hold: Hold, status: str = "", **changes: Any) -> None:
        """Note what became of a held errand; a state that it was stopped in stays.

        Raises LostHoldError.
        """

        def work(session: Session) -> None:
            row = _held(session, hold)
            for name, value in changes.items():
                setattr(row, name, value)
            if status and row.status in OPEN:
                self._go(session, row, status, {})

        self._write(work)

    def done(self, hold: Hold) -> set[int]:
        """Numbers of the rows that are done."""
        query = select(ItemRow.number).where(ItemRow.errand_id == hold.job_id)
        return self._read(lambda session: set(session.scalars(query)))

    def add(self, hold: Hold, number: int, prefix: str, status: str, body: Body) -> None:
        """Note what came of a row, once. Raises LostHoldError."""

        def work(session: Session) -> None:
            _held(session, hold)
            is_known = ItemRow.errand_id == hold.job_id, ItemRow.number == number
            if session.scalar(select(ItemRow.seq).where(*is_known)) is None:
                session.add(
                    ItemRow(
                        id=new_id(prefix, 32), created_at=self.now(), errand_id=hold.job_id,
                        number=number, status=status, body=body,
                    )
                )  # fmt: skip

        self._write(work)

    def counts(self, errand_id: str) -> dict[str, int]:
        """Rows by what came of them."""
        query = (
            select(ItemRow.status, func.count())
            .where(ItemRow.errand_id == errand_id)
            .group_by(ItemRow.status)
        )
        return self._read(lambda session: {row[0]: row[1] for row in session.execute(query)})

    def release(self, hold: Hold) -> None:
        """Let go of an errand, so that it may be taken up by anyone."""
        self._write(
            lambda s: s.execute(
                update(ErrandRow)
                .where(ErrandRow.id == hold.job_id, ErrandRow.hold == hold.number)
                .values(worker="")
            )
        )

    def now(self) -> int:
        """Unix seconds."""
        return int(self._clock())

    def _go(self, session: Session, row: ErrandRow, status: str, changes: dict[str, Any]) -> None:
        row.status, row.times = status, {**row.times, status: self.now()}
        for name, value in changes.items():
            setattr(row, name, value)
        if kind := TOLD[row.kind].get(status):
            announce(session, kind, row.id, self.now())

    def _write(self, work: Callable[[Session], Answer]) -> Answer:
        return self._database.transact(work, patience=self._patience)

    def _read(self, work: Callable[[Session], Answer]) -> Answer:
        return self._database.transact(work, patience=self._patience, reads=True)


def _held(session: Session, hold: Hold) -> ErrandRow:
    row = session.scalar(
        select(ErrandRow)
        .where(ErrandRow.id == hold.job_id, ErrandRow.hold == hold.number)
        .with_for_update()
    )
    if row is None:
        raise LostHoldError("another server has it now", where=hold.job_id)
    return row
