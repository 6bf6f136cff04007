"""luthier serve, worker and keys as commands."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest
from typer.testing import CliRunner

from luthier.cli import app
from luthier.errors import ConfigError
from luthier.jobs import Service
from tiny import write_model

pytestmark = pytest.mark.enable_socket


def run(*words: str) -> str:
    found = CliRunner().invoke(app, list(words), catch_exceptions=False)
    assert found.exit_code == 0, found.output
    return found.stdout


def test_keys_are_made_listed_and_revoked(tmp_path: Path) -> None:
    place = ("--workspace", str(tmp_path))
    secret = run("keys", "create", "anna", "--scope", "read", "--rate", "5", *place).strip()
    assert secret.startswith("sk-luthier-")
    (key,) = json.loads(run("keys", "list", "--json", *place))
    assert (key["name"], key["scopes"], key["requests_per_minute"]) == ("anna", ["read"], 5)
    assert key["hint"].endswith(secret[-4:])
    assert secret not in json.dumps(key)
    run("keys", "revoke", "anna", *place)
    assert json.loads(run("keys", "list", "--json", *place))[0]["revoked"]
    with pytest.raises(ConfigError, match="no such key"):
        run("keys", "revoke", "anna", *place)


def test_who_changed_what_is_shown(tmp_path: Path) -> None:
    place = ("--workspace", str(tmp_path))
    run("keys", "create", "anna", *place)
    (key,) = json.loads(run("keys", "list", "--json", *place))
    service = Service.at(tmp_path, "", "")
    service.keys.note(key["id"], "file.create", "file-1", "req-1")
    service.keys.note("", "file.delete", "file-1", "req-2")
    newest, first = json.loads(run("keys", "record", "--json", *place))
    assert (first["name"], first["action"], first["subject"]) == ("anna", "file.create", "file-1")
    assert newest["request"] == "req-2"
    shown = run("keys", "record", "--last", "1", *place)
    assert "without a key" in shown
    assert "anna" not in shown


def test_without_keys_it_listens_on_this_machine_only() -> None:
    with pytest.raises(ConfigError, match="without keys"):
        run("serve", "--no-key", "--host", "0.0.0.0")


@contextmanager
def serving(folder: Path, *words: str) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "luthier.cli", "serve", "--workspace", str(folder),
               "--port", str(port), *words]  # fmt: skip
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    address = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            if httpx.get(f"{address}/ready").status_code == 200:
                break
        except httpx.TransportError:
            time.sleep(0.1)
    try:
        yield process, address
    finally:
        process.terminate()
        process.communicate()


def worker_of(process: "subprocess.Popen[str]") -> int:
    """Process id of the worker, once it says that it is ready."""
    assert process.stderr is not None
    line = next(line for line in process.stderr if "is ready" in line)
    return int(json.loads(line)["message"].split()[1].split("-")[-2])


def is_alive(number: int) -> bool:
    """Whether a process runs; one that nobody has asked how it ended does not."""
    try:
        return psutil.Process(number).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_server_and_its_worker_start_and_stop_together(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model")
    words = ("--no-key", "--model", f"mine={model}")
    with serving(tmp_path / "service", *words) as (process, address):
        listed = httpx.get(f"{address}/v1/models").json()["data"]
        assert [model["id"] for model in listed] == ["mine"]
        worker = worker_of(process)
        assert is_alive(worker)
        process.send_signal(signal.SIGTERM)
        _, rest = process.communicate(timeout=60)
        assert process.returncode == 0
        assert not is_alive(worker)
        assert all(json.loads(line)["level"] for line in rest.splitlines())


def test_a_worker_does_not_outlive_a_server_that_was_killed(tmp_path: Path) -> None:
    with serving(tmp_path / "service", "--no-key") as (process, _):
        worker = worker_of(process)
        process.kill()
        process.communicate(timeout=60)  # until nobody holds its stderr any more
        assert not is_alive(worker)
