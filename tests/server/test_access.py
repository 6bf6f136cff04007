"""Who may ask for what, how much and how slowly; errors in OpenAI's form, figures, readiness."""

import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai import OpenAI
from running import running

from luthier.errors import ConfigError
from luthier.server import Limits
from luthier.server.access import Pace
from own_service import Service, chats

pytestmark = pytest.mark.enable_socket


@pytest.fixture
def service(tmp_path: Path) -> Service:
    return Service(tmp_path)


@pytest.fixture
def address(service: Service) -> Iterator[str]:
    with running(service) as found:
        yield found


Client = Callable[..., OpenAI]


@pytest.fixture
def client(service: Service, address: str) -> Iterator[Client]:
    """A client with a key of these scopes, or with this key."""
    with ExitStack() as made:

        def make(*scopes: str, rate: int | None = None, key: str = "") -> OpenAI:
            secret = key or service.keys.create("test", scopes, rate)[1]
            return made.enter_context(OpenAI(base_url=address, api_key=secret, max_retries=0))

        yield make


def test_only_keys_are_let_in(service: Service, address: str, client: Client) -> None:
    key, secret = service.keys.create("test", ["read"])
    known = client(key=secret)
    assert known.models.list().data
    for wrong in ("sk-luthier-" + "x" * 48, "anything", secret + "x", secret[:-1]):
        with pytest.raises(openai.AuthenticationError) as found:
            client(key=wrong).models.list()
        assert found.value.code == "invalid_api_key"
    answer = httpx.get(f"{address}/models")
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "missing_api_key")
    assert service.keys.revoke(key.id)
    assert not service.keys.revoke(key.id), "it is already"
    with pytest.raises(openai.AuthenticationError):
        known.models.list()


def test_secrets_are_not_kept(service: Service, tmp_path: Path) -> None:
    _, secret = service.keys.create("test", ["read"])
    service.keys.revoke("test")
    for file in tmp_path.rglob("*"):
        assert not file.is_file() or secret.encode() not in file.read_bytes()


def test_scopes_bound_what_a_key_may_do(service: Service, client: Client) -> None:
    rows = "".join(json.dumps(row) + "\n" for row in chats(3)).encode()
    reader = client("read")
    with pytest.raises(openai.PermissionDeniedError, match="tune"):
        reader.files.create(file=("rows.jsonl", rows), purpose="fine-tune")
    tuner = client("tune")
    made = tuner.files.create(file=("rows.jsonl", rows), purpose="fine-tune")
    with pytest.raises(openai.PermissionDeniedError, match="read"):
        tuner.files.list()
    assert [file.id for file in reader.files.list()] == [made.id]
    everything = client("admin")
    everything.files.delete(made.id)
    done = [(row.action, row.subject) for row in service.keys.record(10)]
    assert done == [("file.delete", made.id), ("file.create", made.id)]


def test_unknown_scopes_are_refused(service: Service) -> None:
    with pytest.raises(ConfigError, match="unknown scope wish"):
        service.keys.create("test", ["wish"])
    with pytest.raises(ConfigError, match="no scope"):
        service.keys.create("test", [])


def test_a_key_that_asks_too_often_waits(client: Client) -> None:
    asking = client("read", rate=3)
    for _ in range(3):
        asking.models.list()
    with pytest.raises(openai.RateLimitError) as found:
        asking.models.list()
    assert 1 <= int(found.value.response.headers["retry-after"]) <= 21
    assert client("read").models.list().data, "another key need not"


def test_the_pace_is_kept_over_time() -> None:
    now = [0.0]
    pace = Pace(lambda: now[0])
    passed = 0
    for _ in range(6000):
        now[0] += 0.1
        passed += pace.wait("key", 60) == 0.0
    assert 60 + 600 - 1 <= passed <= 60 + 600 + 1
    wait = pace.wait("key", 60)
    assert wait > 0
    now[0] += wait + 1e-6
    assert pace.wait("key", 60) == 0.0


def test_without_keys_only_this_machine_by_its_own_name_is_answered(service: Service) -> None:
    with running(service, needs_key=False) as address:
        assert httpx.get(f"{address}/models").status_code == 200
        answer = httpx.get(f"{address}/models", headers={"host": "evil.example:8000"})
        assert answer.status_code == 403


def test_pages_of_other_origins_may_not_ask(service: Service, address: str) -> None:
    headers = {"origin": "https://evil.example", "access-control-request-method": "GET"}
    assert (
        "access-control-allow-origin"
        not in httpx.options(f"{address}/models", headers=headers).headers
    )
    with running(service, origins=("https://good.example",)) as open_address:
        asked = {"origin": "https://good.example", "access-control-request-method": "GET"}
        answer = httpx.options(f"{open_address}/models", headers=asked)
        assert answer.headers["access-control-allow-origin"] == "https://good.example"


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("GET", "/nothing", None, 404, "unknown_url"),
        ("PUT", "/files", None, 405, None),
        ("POST", "/fine_tuning/jobs", b"{", 400, "json_invalid"),
        ("POST", "/fine_tuning/jobs", b"[" * 100_000, 400, None),
        ("POST", "/fine_tuning/jobs", b'{"model": 3}', 400, "string_type"),
        ("POST", "/fine_tuning/jobs", b"\xff\xfe", 400, None),
        ("GET", "/fine_tuning/jobs?limit=0", None, 400, "greater_than_equal"),
        ("GET", "/fine_tuning/jobs?limit=many", None, 400, "int_parsing"),
        ("GET", "/fine_tuning/jobs/';drop table jobs;--", None, 404, "fine_tune_not_found"),
        ("GET", "/files/..%2F..%2Fetc%2Fpasswd", None, 404, None),
        ("GET", "/models/{{7*7}}", None, 404, "model_not_found"),
        ("POST", "/files", b"no form", 400, None),
        ("POST", "/files", b"x" * (2**20 + 2000), 413, "body_too_large"),
    ],
)
def test_errors_are_openais(
    service: Service, method: str, path: str, body: bytes | None, status: int, code: str | None
) -> None:
    limits = Limits(file_bytes=1000)
    with running(service, needs_key=False, limits=limits) as address:
        headers = {"content-type": "application/json"}
        answer = httpx.request(method, address + path, content=body, headers=headers)
    error = answer.json()["error"]
    assert answer.status_code == status
    assert set(error) == {"message", "type", "param", "code"}
    assert code in (None, error["code"])
    assert answer.headers["x-request-id"].startswith("req_")
    assert "Traceback" not in answer.text


def form(content: bytes, *, end: bytes = b"\r\n--x--\r\n") -> dict[str, Any]:
    head = (
        b'--x\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nuser_data\r\n'
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    )
    return {
        "content": head + content + end,
        "headers": {"content-type": "multipart/form-data; boundary=x"},
    }


@pytest.mark.parametrize(
    ("sent", "status", "says"),
    [
        (form(b"abc"), 200, "file-"),
        (form(b"a" * 1001), 413, "larger than 1,000"),
        (form(b"abc", end=b""), 400, "ends in the middle"),
        (form(b"abc") | {"headers": {"content-type": "multipart/form-data"}}, 400, "boundary"),
        ({"data": {"purpose": "user_data"}, "files": {"wrong": b""}}, 400, "required file"),
        ({"data": {"purpose": "wish"}, "files": {"file": b"a"}}, 400, "purpose"),
        ({"data": {"x": "y" * 2**17}, "files": {"file": b"a"}}, 400, "too large or too many"),
    ],
)
def test_forms_that_are_none_leave_nothing(
    service: Service, sent: dict[str, Any], status: int, says: str
) -> None:
    with running(service, needs_key=False, limits=Limits(file_bytes=1000)) as address:
        answer = httpx.post(f"{address}/files", **sent)
    assert (answer.status_code, says in answer.text) == (status, True), answer.text
    incoming = service.folder / "scratch" / "incoming"
    assert not incoming.exists() or not list(incoming.iterdir())


@pytest.mark.parametrize("pace", [0.0, 0.05])
def test_bodies_that_come_too_slowly_are_given_up(service: Service, pace: float) -> None:
    limits = Limits(stall=0.5, least_rate=1000)
    with running(service, needs_key=False, limits=limits) as address:
        host, port = address[len("http://") : -len("/v1")].split(":")
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(
                b"POST /v1/files HTTP/1.1\r\nHost: localhost:1\r\nContent-Length: 10000\r\n"
                b"Content-Type: multipart/form-data; boundary=x\r\n\r\n"
                + form(b"", end=b"")["content"]
            )
            connection.settimeout(pace or 10)
            deadline, answer = time.monotonic() + 20, b""
            while time.monotonic() < deadline and not answer:
                try:
                    answer = connection.recv(4096)
                except TimeoutError:
                    connection.sendall(b"-")
    assert answer.startswith(b"HTTP/1.1 408"), answer


def test_figures_are_told_to_who_may_read(address: str, client: Client) -> None:
    reader = client("read")
    reader.models.list()
    place = address.removesuffix("/v1") + "/metrics"
    assert httpx.get(place).status_code == 401
    told = httpx.get(place, headers={"authorization": f"Bearer {reader.api_key}"}).text
    assert 'method="GET"' in told
    assert "luthier_request_seconds_bucket" in told


def test_a_server_whose_storage_is_gone_is_not_ready(service: Service) -> None:
    with running(service, needs_key=False) as address:
        root = address.removesuffix("/v1")
        assert httpx.get(f"{root}/health").json() == {"status": "ok"}
        assert httpx.get(f"{root}/ready").status_code == 200
        (service.folder / "storage").rename(service.folder / "away")
        (service.folder / "storage").write_text("no folder")
        answer = httpx.get(f"{root}/ready")
        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "storage_unavailable"
        assert str(service.folder) not in answer.text
        assert httpx.get(f"{root}/health").status_code == 200
