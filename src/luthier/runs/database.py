"""The database: opened by URL, brought to the newest version, and asked.

SQLite by default, any SQLAlchemy URL otherwise; the same migrations for all. Only the workspace
uses it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy
from sqlalchemy import event, inspect, text
from sqlalchemy.exc import DatabaseError, OperationalError
from sqlalchemy.orm import Session

from luthier.errors import StorageError
from luthier.runs.tables import Table

REVISION = "0001"
"""The newest migration."""

MIGRATIONS = Path(__file__).parent / "migrations"


class Database:
    """A database at its newest version."""

    def __init__(self, url: str) -> None:
        self._where = sqlalchemy.make_url(url).render_as_string(hide_password=True)
        self._engine = sqlalchemy.create_engine(url)
        if self._engine.dialect.name == "sqlite":
            event.listen(self._engine, "connect", _configure_sqlite)
        with self._translated():
            found = self._revision()
            if found is None or found < REVISION:
                self._upgrade()
            elif found > REVISION:
                raise StorageError(
                    f"the database has version {found}, this Luthier knows {REVISION}",
                    where=self._where,
                    advice="use the newer Luthier that made it, or another runtime.workspace",
                )

    @contextmanager
    def session(self) -> Iterator[Session]:
        """A transaction: committed at the end, rolled back on an error."""
        with self._translated(), Session(self._engine) as session, session.begin():
            yield session

    def close(self) -> None:
        """Give back all connections."""
        self._engine.dispose()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (OperationalError, DatabaseError) as error:
            raise StorageError(
                f"the database cannot be used: {error.orig}",
                where=self._where,
                advice="check its folder; the index can be rebuilt from the runs",
            ) from error

    def _revision(self) -> str | None:
        with self._engine.connect() as connection:
            if not inspect(connection).has_table("alembic_version"):
                return None
            return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()

    def _upgrade(self) -> None:
        from alembic import command
        from alembic.config import Config

        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
        with self._engine.begin() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")


def _configure_sqlite(connection: object, record: object) -> None:
    # Readers do not wait for writers, and writers wait for each other instead of failing.
    for setting in ("journal_mode=WAL", "busy_timeout=30000", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {setting}")  # type: ignore[attr-defined]


METADATA = Table.metadata
