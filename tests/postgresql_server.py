"""A real PostgreSQL, started once for all tests of a process."""

from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import create_engine, make_url, text


@pytest.fixture(scope="session")
def postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a server that was started for the tests."""
    pgserver = pytest.importorskip("pgserver", reason="there is no PostgreSQL for this Python")
    # A socket's path may not be long.
    folder: Path = tmp_path_factory.mktemp("pg")
    server = pgserver.get_server(folder, cleanup_mode="stop")
    yield server.get_uri().replace("postgresql://", "postgresql+psycopg://")
    server.cleanup()


@pytest.fixture
def new_database(postgresql: str) -> Callable[[], str]:
    """Makes an empty database, and gives its URL."""

    def make() -> str:
        name = f"test_{uuid4().hex}"
        engine = create_engine(postgresql, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {name}"))
        engine.dispose()
        return make_url(postgresql).set(database=name).render_as_string(hide_password=False)

    return make
