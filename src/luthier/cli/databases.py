"""luthier db: the database of a service."""

from pathlib import Path
from typing import Annotated

import typer

from luthier.cli.options import DEFAULT_WORKSPACE
from luthier.cli.screen import console
from luthier.cli.serving import DatabaseUrl, Folder

app = typer.Typer(help="The database of a service.", no_args_is_help=True)
File = Annotated[Path, typer.Argument(help="The backup: one file.")]


@app.command("upgrade")
def upgrade(workspace: Folder = DEFAULT_WORKSPACE, database: DatabaseUrl = "") -> None:
    """Bring the database to this version; servers and workers do so when they start, too."""
    from luthier.jobs import LAYOUT, open_database

    open_database(database, workspace).close()
    console().print(f"the database has version {LAYOUT.revision}")


@app.command("backup")
def backup(file: File, workspace: Folder = DEFAULT_WORKSPACE, database: DatabaseUrl = "") -> None:
    """Write all tables into a file, while the service goes on."""
    from luthier.jobs import open_database
    from luthier.jobs.backups import backup

    _told(backup(open_database(database, workspace), file), file)


@app.command("restore")
def restore(file: File, workspace: Folder = DEFAULT_WORKSPACE, database: DatabaseUrl = "") -> None:
    """Read a backup into a new database, also one of another kind."""
    from luthier.jobs import open_database
    from luthier.jobs.backups import restore

    _told(restore(file, open_database(database, workspace)), file)


def _told(counts: dict[str, int], file: Path) -> None:
    rows = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    console().print(f"{file}: {rows or 'no rows'}", markup=False)
