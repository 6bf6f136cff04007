"""Jobs: made by requests, held by workers, told apart from their repetitions.

A worker holds a job by a number that grows with each holder. What it then says counts only as long
as the number is still its own, so that a worker thought dead that wakes again can spoil nothing.
Whether a worker lives is told by its beats, counted in the database and timed by who looks on: no
clock is compared with another one's.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Literal

from sqlalchemy import ColumnElement, exists, func, select, update
from sqlalchemy.orm import Session

from luthier.errors import JobError, LuthierError
from luthier.jobs.hooks import announce
from luthier.jobs.ids import new_id
from luthier.jobs.naming import KEPT
from luthier.jobs.pages import page_of
from luthier.jobs.states import OVER, before
from luthier.jobs.tables import (
    Body,
    CheckpointRow,
    EventRow,
    JobRow,
    MetadataRow,
    ModelRow,
)
from luthier.runs.database import Answer, Database

PATIENCE = 15.0
"""Seconds to wait for a database that is locked or gone."""

REPEATED_WITHIN = 30 * 60
"""Seconds in which a request that says it is a repetition is taken for one."""

Level = Literal["info", "warn", "error"]


class LostHoldError(LuthierError, RuntimeError):
    """Another worker has the job now."""


@dataclass(frozen=True, slots=True)
class Hold:
    """A worker's claim on a job."""

    job_id: str
    worker: str
    number: int


class Jobs:
    """The jobs of a database."""

    def __init__(
        self, database: Database, clock: Callable[[], float] = time.time, patience: float = PATIENCE
    ) -> None:
        self._database, self._clock, self._patience = database, clock, patience

    # What clients do

    def create(self, job: JobRow, *, is_repeated: bool) -> JobRow:
        """Keep a new job, or find the one that an earlier try of the same request has made.

        Clients repeat a request when its answer was lost, and say so; the first one may still be
        on its way, and come last.
        """

        def work(session: Session) -> JobRow:
            _wait_turn(session, job.request_hash)
            found = _same_request(session, job, self.now(), is_repeated=is_repeated)
            if found is not None:
                found.is_claimed = max(found.is_claimed, int(not is_repeated))
                return found
            job.id, job.created_at = new_id("ftjob-"), self.now()
            job.is_claimed = int(not is_repeated)
            session.add(job)
            session.flush()
            for key, value in job.meta.items():
                session.add(MetadataRow(job_seq=job.seq, key=key, value=value))
            _note(session, job.id, "created", self.now(), f"Created fine-tuning job: {job.id}")
            _note(
                session, job.id, "validating", self.now(),
                f"Validating training file: {job.training_file}",
            )  # fmt: skip
            return job

        return self._write(work)

    def find(self, job_id: str) -> JobRow | None:
        """The job with this id."""
        return self._read(lambda s: s.scalar(select(JobRow).where(JobRow.id == job_id)))

    def list(
        self, after: str | None, limit: int, metadata: dict[str, str] | None = None
    ) -> tuple[Sequence[JobRow], bool]:
        """The newest jobs made before `after`, and whether there are more.

        `metadata` holds pairs that a job must have; an empty one wants jobs without any.
        """
        wanted: list[ColumnElement[bool]] = []
        if metadata == {}:
            wanted.append(~exists().where(MetadataRow.job_seq == JobRow.seq))
        for key, value in (metadata or {}).items():
            wanted.append(
                exists().where(
                    MetadataRow.job_seq == JobRow.seq,
                    MetadataRow.key == key,
                    MetadataRow.value == value,
                )
            )
        return self._page(JobRow, wanted, after, limit)

    def count(self) -> dict[str, int]:
        """Jobs in each state."""
        query = select(JobRow.status, func.count()).group_by(JobRow.status)
        return self._read(lambda s: {row[0]: row[1] for row in s.execute(query)})

    def events(self, job_id: str, after: str | None, limit: int) -> tuple[Sequence[EventRow], bool]:
        """The newest events of a job before `after`, and whether there are more."""
        return self._page(EventRow, [EventRow.job_id == job_id], after, limit)

    def checkpoints(
        self, job_id: str, after: str | None, limit: int
    ) -> tuple[Sequence[CheckpointRow], bool]:
        """The newest checkpoints of a job before `after`, and whether there are more.

        Those whose model is no longer kept are none.
        """
        is_kept = exists().where(ModelRow.id == CheckpointRow.model, ModelRow.deleted_at.is_(None))
        return self._page(CheckpointRow, [CheckpointRow.job_id == job_id, is_kept], after, limit)

    def _page(
        self, table: Any, wanted: Iterable[ColumnElement[bool]], after: str | None, limit: int
    ) -> tuple[Sequence[Any], bool]:
        return self._read(lambda s: page_of(s, table, wanted, after=after, limit=limit))

    def move(self, job_id: str, status: str, message: str, **changes: Any) -> JobRow | None:
        """Bring a job into a state, with an event that says so; None where there is no such job.

        Raises JobError.
        """

        def work(session: Session) -> JobRow | None:
            job = session.scalar(select(JobRow).where(JobRow.id == job_id).with_for_update())
            if job is not None:
                self._go(session, job, status, message, changes)
            return job

        return self._write(work)

    def _go(
        self, session: Session, job: JobRow, status: str, message: str, changes: dict[str, Any]
    ) -> None:
        if job.status not in before(status):
            raise JobError(
                f"is {job.status}, so it cannot become {status}",
                where=job.id,
                accepted=f"a job that is {' or '.join(before(status))}",
            )
        job.status = status
        for name, value in changes.items():
            setattr(job, name, value)
        count = session.scalar(select(func.count()).where(EventRow.job_id == job.id))
        _note(session, job.id, f"{status}-{count}", self.now(), message, _level(status))
        if status in OVER:
            announce(session, f"fine_tuning.job.{status}", job.id, self.now())

    # What workers do

    def waiting(self, statuses: Sequence[str]) -> Sequence[JobRow]:
        """Jobs in these states that nobody holds, oldest first."""
        return self._read(
            lambda s: s.scalars(
                select(JobRow)
                .where(JobRow.status.in_(statuses), JobRow.worker == "")
                .order_by(JobRow.seq)
                .limit(100)
            ).all()
        )

    def held(self) -> Sequence[JobRow]:
        """Jobs that a worker holds, dead or alive."""
        return self._read(lambda s: s.scalars(select(JobRow).where(JobRow.worker != "")).all())

    def take(self, job: JobRow, worker: str) -> Hold | None:
        """Hold a job as it was seen; None where another one was faster."""

        def work(session: Session) -> Hold | None:
            taken = session.execute(
                update(JobRow)
                .where(JobRow.seq == job.seq, JobRow.hold == job.hold, JobRow.beat == job.beat)
                .values(worker=worker, hold=job.hold + 1)
            )
            held = Hold(job.id, worker, job.hold + 1)
            return held if taken.rowcount else None  # type: ignore[attr-defined]

        return self._write(work)

    def beat(self, hold: Hold) -> str:
        """Show that the worker lives; the job's state. Raises LostHoldError."""

        def work(session: Session) -> str:
            job = _held(session, hold)
            job.beat += 1
            return job.status

        return self._write(work)

    def change(self, hold: Hold, status: str = "", message: str = "", **changes: Any) -> bool:
        """Note what became of a held job; false where a client has moved it on meanwhile.

        Raises LostHoldError.
        """

        def work(session: Session) -> bool:
            job = _held(session, hold)
            if status and job.status not in before(status):
                return False
            if status:
                self._go(session, job, status, message, changes)
            else:
                for name, value in changes.items():
                    setattr(job, name, value)
            return True

        return self._write(work)

    def tell(self, hold: Hold, events: Sequence[EventRow]) -> None:
        """Note events of a held job, each once by its mark. Raises LostHoldError."""

        def work(session: Session) -> None:
            _held(session, hold)
            known = set(
                session.scalars(
                    select(EventRow.mark).where(
                        EventRow.job_id == hold.job_id, EventRow.mark.in_([e.mark for e in events])
                    )
                )
            )
            for event in events:
                if event.mark not in known:
                    session.add(
                        EventRow(
                            id=new_id("ftevent-"), created_at=self.now(), job_id=hold.job_id,
                            mark=event.mark, level=event.level, type=event.type,
                            message=event.message, data=event.data,
                        )
                    )  # fmt: skip
                    known.add(event.mark)

        self._write(work)

    def add_checkpoint(self, hold: Hold, step: int, model: ModelRow, metrics: Body) -> None:
        """Note a state of the model that can be asked, once a step. Raises LostHoldError."""

        def work(session: Session) -> None:
            _held(session, hold)
            is_known = CheckpointRow.job_id == hold.job_id, CheckpointRow.step == step
            if session.scalar(select(CheckpointRow.seq).where(*is_known)) is None:
                session.add(
                    CheckpointRow(
                        id=new_id("ftckpt_"), created_at=self.now(), job_id=hold.job_id,
                        step=step, model=model.id, metrics=metrics,
                    )
                )  # fmt: skip
                model.created_at = self.now()
                session.add(model)
                session.flush()
                of_job = select(ModelRow).join(CheckpointRow, ModelRow.id == CheckpointRow.model)
                of_job = of_job.where(CheckpointRow.job_id == hold.job_id)
                for old in session.scalars(of_job.order_by(CheckpointRow.step.desc()).offset(KEPT)):
                    old.deleted_at = old.deleted_at or self.now()

        self._write(work)

    def crashed(self, hold: Hold) -> int:
        """Its process died without a word; how often in a row by now. Raises LostHoldError."""

        def work(session: Session) -> int:
            job = _held(session, hold)
            job.crashes += 1
            return job.crashes

        return int(self._write(work))

    def metrics(self, job_id: str) -> Sequence[Body]:
        """What was measured at each step, in order."""
        query = select(EventRow.data).where(EventRow.job_id == job_id, EventRow.type == "metrics")
        return self._read(lambda s: s.scalars(query.order_by(EventRow.seq)).all())

    def succeed(self, hold: Hold, model: ModelRow, results: str, told: Body) -> None:
        """Note the model a job has made. Raises LostHoldError."""
        tokens = sum(int(data.get("num_tokens") or 0) for data in self.metrics(hold.job_id))

        def work(session: Session) -> None:
            job = _held(session, hold)
            if job.status not in before("succeeded"):
                return
            model.created_at = self.now()
            session.add(model)
            _note(session, job.id, "model", self.now(), f"New fine-tuned model created: {model.id}")
            changes = {
                "fine_tuned_model": model.id, "trained_tokens": tokens, "crashes": 0,
                "finished_at": self.now(), "estimated_finish": None,
                "result_files": {"list": [results]},
                "evaluation": {n: told[n] for n in ("verdict", "decision", "general")},
            }  # fmt: skip
            self._go(session, job, "succeeded", "The job has successfully completed", changes)

        self._write(work)

    def release(self, hold: Hold) -> None:
        """Let go of a job, so that it may be taken up by anyone."""
        self._write(
            lambda s: s.execute(
                update(JobRow)
                .where(JobRow.id == hold.job_id, JobRow.hold == hold.number)
                .values(worker="")
            )
        )

    def now(self) -> int:
        """Unix seconds."""
        return int(self._clock())

    def _write(self, work: Callable[[Session], Answer]) -> Answer:
        return self._database.transact(work, patience=self._patience)

    def _read(self, work: Callable[[Session], Answer]) -> Answer:
        return self._database.transact(work, patience=self._patience, reads=True)


def _held(session: Session, hold: Hold) -> JobRow:
    job = session.scalar(
        select(JobRow)
        .where(JobRow.id == hold.job_id, JobRow.hold == hold.number, JobRow.worker == hold.worker)
        .with_for_update()
    )
    if job is None:
        raise LostHoldError("another worker has it now", where=hold.job_id)
    return job


def _wait_turn(session: Session, request_hash: str) -> None:
    """Equal requests come one after the other; SQLite's transactions all do."""
    if session.get_bind().dialect.name == "postgresql":
        number = int.from_bytes(sha256(request_hash.encode()).digest()[:7], "big")
        session.execute(select(func.pg_advisory_xact_lock(number)))


def _same_request(session: Session, job: JobRow, now: int, *, is_repeated: bool) -> JobRow | None:
    """What an earlier arrival of the same request has made."""
    recent = (
        select(JobRow)
        .where(JobRow.request_hash == job.request_hash, JobRow.asked_by == job.asked_by)
        .where(JobRow.created_at >= now - REPEATED_WITHIN)
        .order_by(JobRow.seq.desc())
    )
    return session.scalar(recent if is_repeated else recent.where(JobRow.is_claimed == 0))


def _level(status: str) -> Level:
    return "error" if status == "failed" else "info"


def _note(
    session: Session, job_id: str, mark: str, now: int, message: str, level: Level = "info"
) -> None:
    session.add(
        EventRow(
            id=new_id("ftevent-"), created_at=now, job_id=job_id, mark=mark, level=level,
            type="message", message=message, data={},
        )
    )  # fmt: skip
