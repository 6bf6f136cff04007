"""The service's database, by URL."""

from pathlib import Path

from luthier.runs.database import Database, Layout

LAYOUT = Layout(
    Path(__file__).parent / "migrations",
    "0001",
    "check the address, the account and the disk; nothing is lost while it is away",
)


def open_database(url: str, workspace: Path) -> Database:
    """The database at a URL, or without one SQLite in the workspace's folder.

    Raises ConfigError, StorageError.
    """
    if not url:
        workspace.mkdir(parents=True, exist_ok=True)
        url = f"sqlite:///{workspace / 'service.db'}"
    return Database(url, LAYOUT)
