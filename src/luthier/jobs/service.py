"""A service: what its database and its storage hold."""

from pathlib import Path

from luthier.jobs.captures import Captures
from luthier.jobs.errands import Errands
from luthier.jobs.files import Files
from luthier.jobs.hooks import Hooks
from luthier.jobs.keys import Keys
from luthier.jobs.models import Models
from luthier.jobs.queue import Jobs
from luthier.jobs.storage import Storage
from luthier.jobs.uploads import Uploads
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


class Service:
    """What servers and workers share."""

    def __init__(self, database: Database, storage: Storage) -> None:
        self.database, self.storage = database, storage
        self.jobs = Jobs(database)
        self.files = Files(database, storage)
        self.uploads = Uploads(database, storage, self.files)
        self.keys = Keys(database)
        self.models = Models(database, storage)
        self.errands = Errands(database)
        self.hooks = Hooks(database)
        self.captures = Captures(database)

    @classmethod
    def at(cls, workspace: Path, database: str = "", storage: str = "") -> "Service":
        """The service of a folder, or of a database and a storage by URL.

        Raises ConfigError, StorageError.
        """
        folder = workspace.absolute()
        return cls(
            open_database(database, folder),
            Storage(storage or str(folder / "storage"), folder / "scratch"),
        )
