"""Models that jobs have made, and who may use their checkpoints."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from luthier.jobs.ids import new_id
from luthier.jobs.pages import page_of
from luthier.jobs.storage import Storage
from luthier.jobs.tables import ModelRow, PermissionRow
from luthier.runs.database import Answer, Database


class Models:
    """The tuned models of a database and a storage."""

    def __init__(
        self,
        database: Database,
        storage: Storage,
        clock: Callable[[], float] = time.time,
        patience: float = 15.0,
    ) -> None:
        self._database, self._storage = database, storage
        self._clock, self._patience = clock, patience

    def list(self) -> Sequence[ModelRow]:
        """Models that are not deleted, newest first."""
        query = select(ModelRow).where(ModelRow.deleted_at.is_(None)).order_by(ModelRow.seq.desc())
        return self._read(lambda session: session.scalars(query).all())

    def find(self, name: str) -> ModelRow | None:
        """The model with this name, unless it is deleted."""
        query = select(ModelRow).where(ModelRow.id == name, ModelRow.deleted_at.is_(None))
        return self._read(lambda session: session.scalar(query))

    def start_of(self, row: ModelRow) -> ModelRow | None:
        """The tuned model that a model started from, also a deleted one; None where it is none."""
        query = select(ModelRow).where(ModelRow.id == row.parent)
        return self._read(lambda session: session.scalar(query))

    def folder(self, row: ModelRow) -> Path:
        """A folder on this machine with a model: a run's, or that of a checkpoint in a run.

        Raises StorageError.
        """
        run, _, step = row.place.partition("/asked/")
        if not step:
            return self._storage.local_folder(run, but="checkpoints")
        self._storage.local(f"{run}/recipe.resolved.json")
        return self._storage.local_folder(row.place)

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
        wanted = [PermissionRow.checkpoint == checkpoint]
        if project:
            wanted.append(PermissionRow.project_id == project)
        return self._read(
            lambda session: page_of(
                session, PermissionRow, wanted, after=after, limit=limit, is_ascending=is_ascending
            )
        )

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
