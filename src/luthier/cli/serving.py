"""luthier serve, worker, keys: a service that answers OpenAI's fine-tuning protocol."""

import json
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.table import Table

from luthier.cli.lines import log_lines
from luthier.cli.options import DEFAULT_WORKSPACE, AsJson
from luthier.cli.screen import console
from luthier.errors import ConfigError

if TYPE_CHECKING:
    import uvicorn
    from fastapi import FastAPI

    from luthier.jobs import Service
    from luthier.server import Base, Settings

LOOPBACK = ("127.0.0.1", "localhost", "::1")
RESTART = 5.0
"""Seconds until a worker that died is started anew."""
GRACE = 30
"""Seconds in which requests under way may end when the server is stopped."""

Folder = Annotated[
    Path, typer.Option("--workspace", help="Folder of the service: its database, files, runs.")
]
DatabaseUrl = Annotated[
    str,
    typer.Option(
        "--database", envvar="LUTHIER_DATABASE", metavar="URL",
        help="PostgreSQL as postgresql://...; else SQLite in the workspace.",
    ),
]  # fmt: skip
StorageUrl = Annotated[
    str,
    typer.Option(
        "--storage", envvar="LUTHIER_STORAGE", metavar="URL",
        help="Where contents are kept, such as s3://bucket/folder; else in the workspace.",
    ),
]  # fmt: skip
Embedder = Annotated[
    str | None,
    typer.Option(
        "--embedder", metavar="NAME", help="Model whose vectors graders compare texts by."
    ),
]
Capture = Annotated[
    float | None,
    typer.Option(
        "--capture", metavar="DAYS", min=0.01,
        help="Keep what is asked and answered for so long, masked, to learn from.",
    ),
]  # fmt: skip
Engine = Annotated[
    Literal["torch", "llama.cpp", "vllm"],
    typer.Option("--engine", help="What answers: our own, llama.cpp for GGUF, or vLLM at --vllm."),
]
VllmUrl = Annotated[
    str, typer.Option("--vllm", metavar="URL", help="Where vLLM answers from, for --engine vllm.")
]
Slots = Annotated[int, typer.Option("--slots", min=1, help="Jobs that a worker does at once.")]

Memory = Annotated[
    float | None,
    typer.Option(
        "--memory", metavar="GIB", min=0.1,
        help="Memory for the jobs that a worker does at once; else nine tenths of all there is.",
    ),
]  # fmt: skip

Ray = Annotated[
    str,
    typer.Option(
        "--ray", metavar="ADDRESS",
        help="Submit jobs to this Ray cluster; its nodes must see the workspace and the storage.",
    ),
]  # fmt: skip
RayWorkers = Annotated[
    int, typer.Option("--ray-workers", min=1, help="Of the cluster, for each job.")
]

keys = typer.Typer(help="Keys of a service's clients.", no_args_is_help=True)


def serve(
    *,
    model: Annotated[
        list[str],
        typer.Option("--model", metavar="NAME=SOURCE", help="A model that jobs may start from."),
    ] = [],  # noqa: B006 - typer's form
    host: Annotated[str, typer.Option(help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen at.", min=0, max=65535)] = 8000,
    workspace: Folder = DEFAULT_WORKSPACE,
    database: DatabaseUrl = "",
    storage: StorageUrl = "",
    workers: Annotated[
        int, typer.Option("--workers", min=0, max=1, help="0: start none; they run elsewhere.")
    ] = 1,
    slots: Slots = 1,
    memory: Memory = None,
    ray: Ray = "",
    ray_workers: RayWorkers = 1,
    no_key: Annotated[
        bool, typer.Option("--no-key", help="Ask for no key; only on this machine.")
    ] = False,
    embedder: Embedder = None,
    capture: Capture = None,
    engine: Engine = "torch",
    vllm: VllmUrl = "",
    origin: Annotated[
        list[str],
        typer.Option("--origin", metavar="URL", help="Pages from there may ask, in a browser."),
    ] = [],  # noqa: B006
) -> None:
    """Answer OpenAI's fine-tuning protocol, and work on the jobs."""
    _needs_serving()
    from luthier.jobs import Service
    from luthier.pipeline import Engines, Readers
    from luthier.recipe import Runtime
    from luthier.server import Settings, create_app
    from luthier.server.tracing import trace

    bases = _bases(model)
    engines = Engines(Runtime(), kind=engine, url=vllm)
    service = Service.at(workspace, database, storage)
    settings = Settings(
        bases, needs_key=not no_key, origins=tuple(origin), embedder=embedder,
        capture_days=capture,
    )  # fmt: skip
    _check(settings, host)
    log_lines()
    console().print(f"http://{host}:{port}/v1 with {len(bases)} base models", markup=False)
    if not no_key and not service.keys.list():
        console().print("There is no key yet; make one with: luthier keys create NAME")
    app = create_app(service, settings, engines, Readers(Runtime()))
    trace(app)
    # Addresses go by the environment: they may hold a password, and `ps` shows arguments.
    os.environ |= {"LUTHIER_DATABASE": database, "LUTHIER_STORAGE": storage}
    options = {"slots": slots, "memory": memory, "ray": ray, "ray-workers": ray_workers}
    command = _worker_command(workspace, options) if workers else []
    # uvicorn ends tidily at SIGTERM, then passes it on: as Ctrl-C, so that the worker ends, too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with suppress(KeyboardInterrupt), _working(command):
        _listening(app, host, port).run()


def _listening(app: "FastAPI", host: str, port: int) -> "uvicorn.Server":
    import uvicorn

    config = uvicorn.Config(
        app, host=host, port=port, log_config=None, access_log=False, server_header=False,
        timeout_graceful_shutdown=GRACE,
    )  # fmt: skip
    return uvicorn.Server(config)


def _check(settings: "Settings", host: str) -> None:
    """Raise ConfigError where a server would be open to anybody, or has not what it needs."""
    if not settings.needs_key and host not in LOOPBACK:
        raise ConfigError(
            "without keys anybody who reaches it may use it", where=f"--host {host}",
            accepted=f"one of {', '.join(LOOPBACK)} with --no-key",
        )  # fmt: skip
    if settings.embedder is not None and settings.base(settings.embedder) is None:
        raise ConfigError(
            f"is {settings.embedder}", where="--embedder",
            accepted=f"one of {', '.join(settings.bases) or 'none'}",
            advice="name it as a --model too",
        )  # fmt: skip


def _bases(texts: Sequence[str]) -> "dict[str, Base]":
    from luthier.jobs.naming import alias_of
    from luthier.server import Base

    named = [text.split("=", 1) if "=" in text else [alias_of(text), text] for text in texts]
    return {name: Base(name, source) for name, source in named}


def _worker_command(workspace: Path, options: "Mapping[str, object]") -> list[str]:
    given = [word for name, value in options.items() if value not in (None, "")
             for word in (f"--{name}", str(value))]  # fmt: skip
    command = [sys.executable, "-m", "luthier.cli", "worker", "--workspace", str(workspace)]
    return [*command, *given, "--attached"]


@contextmanager
def _working(command: Sequence[str]) -> Iterator[None]:
    """Within, a worker runs beside the server."""
    over = threading.Event()
    keeper = threading.Thread(target=_keep_working, args=(command, over), daemon=True)
    if not command:
        yield
        return
    keeper.start()
    try:
        yield
    finally:
        over.set()
        keeper.join()


def _keep_working(command: Sequence[str], over: threading.Event) -> None:
    """A worker beside the server, started anew when it dies; at the end it saves its jobs."""
    while not over.is_set():
        process = subprocess.Popen(  # noqa: S603 - our own words
            command, start_new_session=True, stdin=subprocess.PIPE
        )
        while process.poll() is None and not over.wait(0.5):
            pass
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait()
            return
        over.wait(RESTART)


def worker(
    *,
    workspace: Folder = DEFAULT_WORKSPACE,
    database: DatabaseUrl = "",
    storage: StorageUrl = "",
    slots: Slots = 1,
    memory: Memory = None,
    ray: Ray = "",
    ray_workers: RayWorkers = 1,
    attached: Annotated[bool, typer.Option("--attached", hidden=True)] = False,
) -> None:
    """Work on a service's jobs until stopped; then they save, and others take them up."""
    from luthier.jobs import Service, Worker

    log_lines()
    service = Service.at(workspace, database, storage)
    over = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: over.set())
    if attached:  # the server that started it holds the other end, as long as it lives
        threading.Thread(target=_await_end, args=(over,), daemon=True).start()
    log = logging.getLogger("luthier.worker")
    found = Worker(
        service.jobs, service.files, service.storage, slots=slots,
        memory=int((memory or 0) * 2**30), ray=ray, ray_workers=ray_workers, say=log.info,
    )  # fmt: skip
    log.info("worker %s is ready", found.name)
    found.run(over.is_set, over.wait)


def _await_end(over: threading.Event) -> None:
    sys.stdin.read()
    over.set()


def _needs_serving() -> None:
    if missing := [name for name in ("fastapi", "uvicorn", "python_multipart", "prometheus_client")
                   if find_spec(name) is None]:  # fmt: skip
        raise ConfigError(
            f"needs {missing[0]}, which is not installed",
            where="luthier serve",
            advice="pip install 'luthier[serve]'",
        )


def open_service(workspace: Path, database: str) -> "Service":
    from luthier.jobs import Service

    return Service.at(workspace, database)


@keys.command("create")
def create_key(
    name: Annotated[str, typer.Argument(help="Whose it is.")],
    scope: Annotated[
        list[str], typer.Option("--scope", help="read, tune, infer or admin; else the first three.")
    ] = [],  # noqa: B006
    rate: Annotated[
        int | None, typer.Option("--rate", min=1, help="Requests per minute it may make.")
    ] = None,
    workspace: Folder = DEFAULT_WORKSPACE,
    database: DatabaseUrl = "",
) -> None:
    """Make a key, and print it: it is told this once, and only its hash is kept."""
    service = open_service(workspace, database)
    row, secret = service.keys.create(name, scope or ["read", "tune", "infer"], rate)
    sys.stderr.write(f"{row.id} for {name}: {', '.join(row.scopes['list'])}\n")
    typer.echo(secret)


@keys.command("list")
def list_keys(
    workspace: Folder = DEFAULT_WORKSPACE, database: DatabaseUrl = "", as_json: AsJson = False
) -> None:
    """All keys, without their secrets."""
    rows = open_service(workspace, database).keys.list()
    told = [
        {
            "id": row.id, "name": row.name, "hint": row.hint, "scopes": row.scopes["list"],
            "requests_per_minute": row.requests_per_minute, "created": _day(row.created_at),
            "revoked": _day(row.revoked_at) if row.revoked_at else None,
        }
        for row in rows
    ]  # fmt: skip
    if as_json:
        typer.echo(json.dumps(told, indent=1))
        return
    table = Table("id", "name", "ends in", "scopes", "created", "revoked", box=None)
    for key in told:
        scopes = " ".join(key["scopes"])
        table.add_row(
            key["id"], key["name"], key["hint"], scopes, key["created"], key["revoked"] or ""
        )
    console().print(table)


@keys.command("revoke")
def revoke_key(
    key: Annotated[str, typer.Argument(help="Its id or name.")],
    workspace: Folder = DEFAULT_WORKSPACE,
    database: DatabaseUrl = "",
) -> None:
    """Refuse a key from now on."""
    if not open_service(workspace, database).keys.revoke(key):
        raise ConfigError(
            "there is no such key", where=key, advice="luthier keys list shows all there are"
        )
    console().print(f"{key} is revoked", markup=False)


@keys.command("record")
def show_record(
    last: Annotated[int, typer.Option("--last", min=1, help="How many, the newest first.")] = 50,
    workspace: Folder = DEFAULT_WORKSPACE,
    database: DatabaseUrl = "",
    as_json: AsJson = False,
) -> None:
    """Show who changed what, by which request."""
    service = open_service(workspace, database)
    names = {row.id: row.name for row in service.keys.list()}
    told = [
        {"at": _day(row.created_at), "key": row.key_id, "name": names.get(row.key_id, ""),
         "action": row.action, "subject": row.subject, "request": row.request_id}
        for row in service.keys.record(last)
    ]  # fmt: skip
    if as_json:
        typer.echo(json.dumps(told, indent=1))
        return
    table = Table("at", "who", "did", "to", "request", box=None)
    for entry in told:
        who = entry["name"] or entry["key"] or "without a key"
        table.add_row(entry["at"], who, entry["action"], entry["subject"], entry["request"])
    console().print(table)


def _day(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M")
