"""What was asked and answered, and what people think of it: kept for some days, to learn from."""

import time
from collections.abc import Callable, Iterator, Sequence

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from luthier.jobs.tables import Body, CaptureRow
from luthier.runs.database import Answer, Database

BLOCK = 500
DAY = 86_400


class Captures:
    """The captures of a database."""

    def __init__(
        self, database: Database, clock: Callable[[], float] = time.time, patience: float = 15.0
    ) -> None:
        self._database, self._clock, self._patience = database, clock, patience

    def keep(self, capture_id: str, model: str, key_id: str, request: Body, answer: Body) -> None:
        """Keep what was asked and answered."""
        row = CaptureRow(
            id=capture_id, created_at=int(self._clock()), model=model, key_id=key_id,
            request=request, answer=answer, feedback=None,
        )  # fmt: skip
        self._write(lambda session: session.add(row))

    def find(self, capture_id: str) -> CaptureRow | None:
        """The capture of an answer with this id."""
        query = select(CaptureRow).where(CaptureRow.id == capture_id)
        return self._read(lambda session: session.scalar(query))

    def judge(self, capture_id: str, feedback: Body) -> bool:
        """Note what somebody thinks of an answer; the last word counts."""

        def work(session: Session) -> bool:
            query = select(CaptureRow).where(CaptureRow.id == capture_id).with_for_update()
            row = session.scalar(query)
            if row is not None:
                row.feedback = {**(row.feedback or {}), **feedback}
            return row is not None

        return self._write(work)

    def delete(self, capture_id: str) -> bool:
        """Forget one; false where there is none."""
        query = delete(CaptureRow).where(CaptureRow.id == capture_id)
        return bool(self._write(lambda s: s.execute(query).rowcount))  # type: ignore[attr-defined]

    def forget(self, days: float) -> int:
        """Forget what is older; how many."""
        query = delete(CaptureRow).where(CaptureRow.created_at < self._clock() - days * DAY)
        return int(self._write(lambda s: s.execute(query).rowcount))  # type: ignore[attr-defined]

    def all(self) -> Iterator[CaptureRow]:
        """All that is kept, oldest first."""
        rows = self._behind(0)
        while rows:
            yield from rows
            rows = self._behind(rows[-1].seq)

    def _behind(self, last: int) -> Sequence[CaptureRow]:
        query = select(CaptureRow).where(CaptureRow.seq > last).order_by(CaptureRow.seq)
        return self._read(lambda session: session.scalars(query.limit(BLOCK)).all())

    def _write(self, work: Callable[[Session], Answer]) -> Answer:
        return self._database.transact(work, patience=self._patience)

    def _read(self, work: Callable[[Session], Answer]) -> Answer:
        return self._database.transact(work, patience=self._patience, reads=True)
