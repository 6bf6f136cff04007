"""The database: opened by URL, brought to the newest version, and asked.

SQLite by default, any SQLAlchemy URL otherwise; the same migrations for all. Only the workspace
uses it.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy
from sqlalchemy import URL, Connection, Engine, event, inspect, text
from sqlalchemy.exc import ArgumentError, DatabaseError, NoSuchModuleError, OperationalError
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from luthier.errors import ConfigError, StorageError
from luthier.runs.tables import Table

REVISION = "0001"
"""The newest migration."""

MIGRATIONS = Path(__file__).parent / "migrations"


class Database:
    """A database at its newest version."""

    def __init__(self, url: str) -> None:
        """Open it. The caller sees to it that one process at a time does."""
        parsed = _parse(url)
        self._where = parsed.render_as_string(hide_password=True)
        self._engine = _engine(parsed, self._where)
        with self._translated():
            found = self._revision()
            self.was_empty = found is None
            """Whether the tables had to be made, so that nothing is indexed yet."""
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
                advice="check its folder; removed, it is made again from the runs",
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


def _parse(url: str) -> URL:
    try:
        return sqlalchemy.make_url(url)
    except ArgumentError:
        # The text may hold a password, so it is not repeated.
        raise ConfigError(
            "not a database URL",
            where="the workspace's database",
            accepted="such as postgresql+psycopg://user:password@host/name",
        ) from None


def _engine(url: URL, where: str) -> Engine:
    # SQLite gets a connection per transaction: none is left open behind a fork or a notebook.
    options: dict[str, Any] = {"poolclass": NullPool} if url.drivername == "sqlite" else {}
    try:
        engine = sqlalchemy.create_engine(url, **options)
    except (NoSuchModuleError, ModuleNotFoundError) as error:
        raise ConfigError(
            f"no driver for this kind of database ({error})",
            where=where,
            accepted="sqlite, or a URL whose driver is installed",
            advice="install the driver with pip",
        ) from None
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _configure_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    return engine


def _begin_sqlite(connection: Connection) -> None:
    # Immediate: a transaction that reads and then writes would fail at once, not wait its turn.
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _configure_sqlite(connection: sqlite3.Connection, record: object) -> None:
    # The driver's own transactions leave out table changes, so a broken-off migration would stay
    # half done for good; with None it is ours that count.
    connection.isolation_level = None
    # Readers do not wait for writers, and writers wait for each other instead of failing.
    for setting in ("busy_timeout=30000", "journal_mode=WAL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {setting}")


METADATA = Table.metadata
