"""luthier webhooks: addresses that a service tells of what has ended."""

import json
import sys
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.table import Table

from luthier.cli.options import DEFAULT_WORKSPACE, AsJson
from luthier.cli.screen import console
from luthier.cli.serving import DatabaseUrl, Folder, open_service
from luthier.errors import ConfigError

app = typer.Typer(help="Addresses that are told when a job has ended.", no_args_is_help=True)
Url = Annotated[str, typer.Argument(help="https://HOST/PATH.")]


@app.command("add")
def add(url: Url, workspace: Folder = DEFAULT_WORKSPACE, database: DatabaseUrl = "") -> None:
    """Tell an address from now on, and print the secret its messages are signed with."""
    row = open_service(workspace, database).hooks.add(url)
    sys.stderr.write(f"{row.id}: {url}\n")
    typer.echo(row.secret)


@app.command("list")
def list_hooks(
    workspace: Folder = DEFAULT_WORKSPACE, database: DatabaseUrl = "", as_json: AsJson = False
) -> None:
    """All addresses, and the last messages to them."""
    hooks = open_service(workspace, database).hooks
    told = [{"id": row.id, "url": row.url} for row in hooks.list()]
    sent = [
        {"id": row.id, "hook": row.hook_id, "type": row.type, "subject": row.subject,
         "tries": row.tries, "sent": _time(row.sent_at), "next": _time(row.next_at)}
        for row in hooks.deliveries(20)
    ]  # fmt: skip
    if as_json:
        typer.echo(json.dumps({"webhooks": told, "messages": sent}, indent=1))
        return
    table = Table("id", "url", box=None)
    for hook in told:
        table.add_row(hook["id"], hook["url"])
    console().print(table)
    messages = Table("message", "about", "tries", "taken", "tried next", box=None)
    for one in sent:
        messages.add_row(
            *(str(one[name] or "") for name in ("type", "subject", "tries", "sent", "next"))
        )
    if sent:
        console().print(messages)


@app.command("remove")
def remove(
    hook: Annotated[str, typer.Argument(help="Its id or address.")],
    workspace: Folder = DEFAULT_WORKSPACE,
    database: DatabaseUrl = "",
) -> None:
    """Tell an address no more."""
    if not open_service(workspace, database).hooks.remove(hook):
        raise ConfigError(
            "there is no such webhook", where=hook,
            advice="luthier webhooks list shows all there are",
        )  # fmt: skip
    console().print(f"{hook} is told no more", markup=False)


def _time(seconds: int | None) -> str | None:
    return datetime.fromtimestamp(seconds, UTC).isoformat(" ") if seconds else None
