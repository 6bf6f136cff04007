"""A service's database as one file, and back: also from SQLite to PostgreSQL.

The file is itself a database of the service, in SQLite. Contents (files, models) lie in the
storage, and are backed up there.
"""

from collections.abc import Sequence
from pathlib import Path

from sqlalchemy import RowMapping, Table, func, insert, select
from sqlalchemy.orm import Session

from luthier.errors import ConfigError, StorageError
from luthier.jobs.service import LAYOUT
from luthier.jobs.tables import METADATA
from luthier.runs.database import Database
from luthier.runs.files import atomic_file

AT_ONCE = 1000
PATIENCE = 15.0


def backup(database: Database, file: Path) -> dict[str, int]:
    """Write all tables as they are at one moment; rows of each. Nothing is held up meanwhile.

    Raises ConfigError where the file exists, StorageError.
    """
    if file.exists():
        raise ConfigError("exists already", where=str(file), accepted="a new file")
    try:
        with atomic_file(file) as unfinished:
            copy = Database(f"sqlite:///{unfinished}", LAYOUT)
            try:
                return database.transact(
                    lambda session: _copy(session, copy), patience=PATIENCE, reads=True
                )
            finally:
                copy.close()
    except OSError as error:
        raise StorageError(f"cannot be written: {error}", where=str(file)) from error


def restore(file: Path, database: Database) -> dict[str, int]:
    """Read all tables into a database that has no rows yet; rows of each.

    Raises ConfigError where there is no such file, or there are rows, StorageError.
    """
    if not file.is_file():
        raise ConfigError("there is no such file", where=str(file))
    source = Database(f"sqlite:///{file}", LAYOUT)
    try:
        with source.session() as session:
            return _copy(session, database)
    finally:
        source.close()


def _copy(source: Session, target: Database) -> dict[str, int]:
    if source.get_bind().dialect.name == "postgresql":
        source.connection(execution_options={"isolation_level": "REPEATABLE READ"})
    counts = {}
    with target.session() as session:
        for table in METADATA.sorted_tables:
            if session.scalar(select(func.count()).select_from(table)):
                raise ConfigError(
                    f"has {table.name} already", where="the database", accepted="one without rows"
                )
            rows = source.execute(select(table)).mappings()
            counts[table.name] = sum(
                _insert(session, table, some) for some in rows.partitions(AT_ONCE)
            )
            _count_on(session, table)
    return counts


def _insert(session: Session, table: Table, rows: Sequence[RowMapping]) -> int:
    session.execute(insert(table), [dict(row) for row in rows])
    return len(rows)


def _count_on(session: Session, table: Table) -> None:
    """Let PostgreSQL number the next row behind the last one; SQLite does."""
    if session.get_bind().dialect.name != "postgresql" or "seq" not in table.columns:
        return
    last = session.scalar(select(func.max(table.columns["seq"])))
    if last is not None:
        numbers = func.pg_get_serial_sequence(table.name, "seq")
        session.execute(select(func.setval(numbers, last)))
