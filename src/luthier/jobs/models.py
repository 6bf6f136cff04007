"""Models that jobs have made, and who may use their checkpoints."""

import time
from collections.abc import Callable, Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from luthier.jobs.ids import new_id
from luthier.jobs.tables import ModelRow, PermissionRow
from luthier.runs.database import Answer, Database


class Models:
    """The tuned models of a database."""

    def __init__(
        self, database: Database, clock: Callable[[], float] = time.time, patience: float = 15.0
    ) -> None:
        self._database, self._clock, self._patience = database, clock, patience

    def list(self) -> Sequence[ModelRow]:
        """Models that are not deleted, newest first."""
        query = select(ModelRow).where(ModelRow.deleted_at.is_(None)).order_by(ModelRow.seq.desc())
        return self._read(lambda session: session.scalars(query).all())

    def find(self, name: str) -> ModelRow | None:
        """The model with this name, unless it is deleted."""
        query = select(ModelRow).where(ModelRow.id == name, ModelRow.deleted_at.is_(None))
        return self._read(lambda session: session.scalar(query))

    def delete(self, name: str) -> bool:
        """Forget a model; false where there is none."""

        def work(session: Session) -> bool:
            query = select(ModelRow).where(ModelRow.id == name, ModelRow.deleted_at.is_(None))
            row = session.scalar(query)
            if row is None:
                return False
            row.deleted_at = int(self._clock())
            return True

        return self._write(work)

    def permit(self, checkpoint: str, projects: Sequence[str]) -> Sequence[PermissionRow]:
        """Note projects that may use a checkpoint; one that may already keeps its permission."""

        def work(session: Session) -> list[PermissionRow]:
            found = []
            for project in projects:
                query = select(PermissionRow).where(
                    PermissionRow.checkpoint == checkpoint, PermissionRow.project_id == project
                )
                row = session.scalar(query) or PermissionRow(
                    id=new_id("cp_"), created_at=int(self._clock()), checkpoint=checkpoint,
                    project_id=project,
                )  # fmt: skip
                session.add(row)
                found.append(row)
            session.flush()
            return found

        return self._write(work)

    def permissions(
        self, checkpoint: str, *, after: str | None, limit: int, order: str, project: str | None
    ) -> tuple[Sequence[PermissionRow], bool]:
        """Permissions of a checkpoint by age, beginning behind `after`; whether there are more."""
        is_ascending = order == "ascending"
        query = select(PermissionRow).where(PermissionRow.checkpoint == checkpoint)
        if project:
            query = query.where(PermissionRow.project_id == project)

        def work(session: Session) -> tuple[Sequence[PermissionRow], bool]:
            wanted = query
            if after:
                seq = session.scalar(select(PermissionRow.seq).where(PermissionRow.id == after))
                if seq is None:
                    return [], False
                column = PermissionRow.seq
                wanted = query.where(column > seq if is_ascending else column < seq)
            by = PermissionRow.seq.asc() if is_ascending else PermissionRow.seq.desc()
            found = session.scalars(wanted.order_by(by).limit(limit + 1)).all()
            return found[:limit], len(found) > limit

        return self._read(work)

    def forbid(self, checkpoint: str, permission_id: str) -> bool:
        """Take a permission back; false where there is none."""

        def work(session: Session) -> bool:
            query = select(PermissionRow).where(
                PermissionRow.checkpoint == checkpoint, PermissionRow.id == permission_id
            )
            row = session.scalar(query)
            if row is not None:
                session.delete(row)
            return row is not None

        return self._write(work)

    def _write(self, work: Callable[[Session], Answer]) -> Answer:
        return self._database.transact(work, patience=self._patience)

    def _read(self, work: Callable[[Session], Answer]) -> Answer:
        return self._database.transact(work, patience=self._patience, reads=True)
