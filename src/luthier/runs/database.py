"""A database: opened by URL, brought to the newest version, and asked.

SQLite by default, any SQLAlchemy URL otherwise; the same migrations for all. The workspace keeps
its index in one, the service its jobs in another.
"""

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy
from sqlalchemy import URL, Connection, Engine, event, inspect, text
from sqlalchemy.exc import (
    ArgumentError,
    DatabaseError,
    DBAPIError,
    InterfaceError,
    NoSuchModuleError,
    OperationalError,
)
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from luthier.errors import ConfigError, StorageError

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Layout:
    """Which tables a database is to have."""

    migrations: Path
    """Folder of Alembic's."""
    revision: str
    """The newest one."""
    advice: str
    """What to do when the database cannot be used."""


RUNS = Layout(
    Path(__file__).parent / "migrations",
    "0001",
    "check its folder; removed, it is made again from the runs",
)

ONE_AT_A_TIME = 7_305_118
"""Number of the lock under which one process at a time makes PostgreSQL's tables."""


class Database:
    """A database at its newest version."""

    def __init__(self, url: str, layout: Layout = RUNS) -> None:
        """Open it, and bring it to the newest version, one process after another."""
        parsed = _parse(url)
        self._layout, self._where = layout, parsed.render_as_string(hide_password=True)
        self._engine = _engine(parsed, self._where)
        with self._translated():
            found = self._found()
            self.was_empty = found is None
            """Whether the tables had to be made, so that nothing is in them yet."""
            if found is None or found < layout.revision:
                self._upgrade()
            elif found > layout.revision:
                raise StorageError(
                    f"the database has version {found}, this Luthier knows {layout.revision}",
                    where=self._where,
                    advice="use the newer Luthier that made it, or another database",
                )

    @contextmanager
    def session(self) -> Iterator[Session]:
        """A transaction: committed at the end, rolled back on an error."""
        with self._translated(), Session(self._engine) as session, session.begin():
            yield session

    def transact(
        self, work: Callable[[Session], Answer], *, patience: float, reads: bool = False
    ) -> Answer:
        """`work` in a transaction, again and again for `patience` seconds while there is none.

        A database that is locked, restarted or out of reach for a while is waited for. `work` may
        run more than once, and what it did before has then been rolled back. What only `reads`
        waits for no writer.
        """
        engine = self._engine.execution_options(reads=reads)
        deadline, pause = time.monotonic() + patience, 0.05
        while True:
            try:
                with Session(engine, expire_on_commit=False) as session, session.begin():
                    return work(session)
            except (OperationalError, InterfaceError) as error:
                if time.monotonic() + pause > deadline:
                    raise self._unusable(error) from error
            except DatabaseError as error:
                raise self._unusable(error) from error
            time.sleep(pause)
            pause = min(2 * pause, 1.0)

    def close(self) -> None:
        """Give back all connections."""
        self._engine.dispose()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except DatabaseError as error:
            raise self._unusable(error) from error

    def _unusable(self, error: DBAPIError) -> StorageError:
        return StorageError(
            f"the database cannot be used: {error.orig}",
            where=self._where,
            advice=self._layout.advice,
        )

    def _found(self) -> str | None:
        with self._engine.connect() as connection:
            return _revision(connection)

    def _upgrade(self) -> None:
        from alembic import command
        from alembic.config import Config

        config = Config()
        migrations = str(self._layout.migrations).replace("%", "%%")
        config.set_main_option("script_location", migrations)
        with self._engine.begin() as connection:
            # SQLite's transactions take turns from their beginning; here others wait as well.
            if connection.dialect.name == "postgresql":
                connection.execute(text(f"SELECT pg_advisory_xact_lock({ONE_AT_A_TIME})"))
            config.attributes["connection"] = connection
            command.upgrade(config, "head")


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def _parse(url: str) -> URL:
    try:
        return sqlalchemy.make_url(url)
    except ArgumentError:
        # The text may hold a password, so it is not repeated.
        raise ConfigError(
            "not a database URL",
            where="the database",
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
    only_reads = connection.get_execution_options().get("reads", False)
    connection.exec_driver_sql("BEGIN" if only_reads else "BEGIN IMMEDIATE")


def _configure_sqlite(connection: sqlite3.Connection, record: object) -> None:
    # The driver's own transactions leave out table changes, so a broken-off migration would stay
    # half done for good; with None it is ours that count.
    connection.isolation_level = None
    # Readers do not wait for writers, and writers wait for each other instead of failing.
    for setting in ("busy_timeout=30000", "journal_mode=WAL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {setting}")
