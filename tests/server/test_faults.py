"""Faults around a server: a database that is locked or gone, a full disk, a clock that jumps."""

import io
import json
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import openai
import pytest
from openai import OpenAI
from running import running, working
from sqlalchemy import make_url

from luthier.jobs import Jobs
from own_service import Service, chats

pytestmark = pytest.mark.enable_socket
AWAY = 10.0
"""Seconds that a database is locked or gone."""
FULL = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, 2_000_000))
sys.argv = ["luthier", "serve", "--no-key", "--workers", "0", *sys.argv[1:]]
from luthier.cli import main
main()
"""


def file_of(count: int) -> tuple[str, io.BytesIO]:
    return "rows.jsonl", io.BytesIO(
        "".join(f"{json.dumps(row)}\n" for row in chats(count)).encode()
    )


def test_a_locked_database_is_waited_for(tmp_path: Path) -> None:
    service = Service(tmp_path)
    database = next(tmp_path.glob("*.db"))
    with (
        running(service, needs_key=False) as address,
        OpenAI(base_url=address, api_key="none", max_retries=0) as client,
    ):
        other = sqlite3.connect(database, isolation_level=None, check_same_thread=False)
        other.execute("BEGIN EXCLUSIVE")
        freeing = threading.Timer(AWAY, other.execute, ["COMMIT"])
        freeing.start()
        began = time.monotonic()
        file = client.files.create(file=file_of(20), purpose="fine-tune")
        assert time.monotonic() - began > AWAY - 1
        freeing.join()
        other.close()
        assert client.files.retrieve(file.id).bytes == file.bytes
        assert len(list(client.files.list())) == 1


class Gate:
    """A way to a server that can be shut: all connections end, and none is taken."""

    def __init__(self, path: str) -> None:
        self._path, self._open = path, True
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self._pairs: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._start(self._take)

    def _start(self, work: Callable[..., None], *given: object) -> None:
        thread = threading.Thread(target=work, args=given, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _take(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listening.accept()
                if not self._open:
                    near.close()
                    continue
                far = socket.socket(socket.AF_UNIX)
                far.connect(self._path)
                self._pairs += [near, far]
                self._start(self._carry, near, far)
                self._start(self._carry, far, near)

    def _carry(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while part := source.recv(65536):
                target.sendall(part)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def shut(self, seconds: float) -> None:
        self._open = False
        for end in self._pairs:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        time.sleep(seconds)
        self._open = True

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self.shut(0)
        for thread in self._threads:
            thread.join(5)
        for end in self._pairs:
            end.close()


@contextmanager
def gated(url: str) -> Iterator[tuple[Gate, str]]:
    """A database behind a gate, and its address there."""
    parsed = make_url(url)
    gate = Gate(f"{parsed.query['host']}/.s.PGSQL.{parsed.port or 5432}")
    near = parsed.set(host="127.0.0.1", port=gate.port, query={})
    yield gate, near.render_as_string(hide_password=False)
    gate.close()


def test_a_database_that_is_gone_for_a_while_loses_nothing(
    tmp_path: Path, new_database: Callable[[], str]
) -> None:
    with gated(new_database()) as (gate, url):
        service = Service(tmp_path, url)
        with (
            running(service, needs_key=False) as address, working(service),
            OpenAI(base_url=address, api_key="none", max_retries=0) as client,
        ):  # fmt: skip
            file = client.files.create(file=file_of(40), purpose="fine-tune")
            job = service.create(file.id)
            deadline = time.monotonic() + 60
            while service.job(job.id).status != "running":
                assert time.monotonic() < deadline
                time.sleep(0.1)
            gate.shut(AWAY)
            deadline = time.monotonic() + 120
            while client.fine_tuning.jobs.retrieve(job.id).status == "running":
                assert time.monotonic() < deadline
                time.sleep(0.2)
            done = client.fine_tuning.jobs.retrieve(job.id)
            assert done.status == "succeeded", done.error
            events = list(client.fine_tuning.jobs.list_events(job.id, limit=100))
            steps = [event.data["step"] for event in events if event.type == "metrics"]  # type: ignore[index]
            assert steps == sorted(set(steps), reverse=True)
        service.database.close()


@contextmanager
def ended(process: "subprocess.Popen[bytes]") -> Iterator[None]:
    """Afterwards, a process has ended."""
    try:
        yield
    finally:
        process.terminate()
        process.wait(30)


def test_a_full_disk_is_told_and_the_server_goes_on(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-c", FULL, "--port", str(port), "--workspace", str(tmp_path)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    client = OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0)
    with process, client, ended(process):
        deadline = time.monotonic() + 60
        while True:
            try:
                client.models.list()
                break
            except openai.APIConnectionError:
                assert time.monotonic() < deadline
                time.sleep(0.2)
        with pytest.raises(openai.InternalServerError) as caught:
            client.files.create(file=("large.jsonl", b"x" * 3_000_000), purpose="fine-tune")
        assert caught.value.status_code == 503
        assert caught.value.code == "storage_unavailable"
        file = client.files.create(file=file_of(20), purpose="fine-tune")
        assert client.files.content(file.id).read() == file_of(20)[1].getvalue()
        assert [one.id for one in client.files.list()] == [file.id]
    assert not [place for place in (tmp_path / "scratch").rglob("*") if place.is_file()]


def test_a_clock_that_jumps_changes_no_order_and_takes_no_job_away(tmp_path: Path) -> None:
    service = Service(tmp_path)
    now = [1e9]
    service.jobs = Jobs(service.database, clock=lambda: now[0])
    file = service.upload(chats(20))
    ids = []
    for jump in (0, -86400, 172800):
        now[0] += jump
        ids.append(service.create(file, request_hash=str(jump)).id)
    listed, _ = service.jobs.list(None, 10)
    assert [job.id for job in listed] == ids[::-1]
