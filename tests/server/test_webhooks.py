"""Webhooks: told at least once of what has ended, signed so that OpenAI's client believes it."""

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import openai
import pytest
from openai import OpenAI
from running import running

from luthier.errors import ConfigError
from luthier.jobs import Hooks
from own_service import Service, chats

pytestmark = pytest.mark.enable_socket


@dataclass
class Receiver:
    """An address that takes messages once it has refused some."""

    refusals: int = 0
    taken: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    tried: int = 0
    changed: threading.Condition = field(default_factory=threading.Condition)

    def wait(self, count: int) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.taken) >= count, 30)


@pytest.fixture
def receiver() -> Iterator[tuple[Receiver, str]]:
    found = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            with found.changed:
                found.tried += 1
                is_taken = found.tried > found.refusals
                self.send_response(200 if is_taken else 500)
                self.end_headers()
                if is_taken:
                    headers = {name.lower(): value for name, value in self.headers.items()}
                    found.taken.append((headers, body))
                found.changed.notify_all()

        def log_message(self, *args: object) -> None:
            """Nothing."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield found, f"http://127.0.0.1:{server.server_address[1]}/hook"
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_job_that_ends_is_told_and_the_client_believes_it(
    tmp_path: Path, receiver: tuple[Receiver, str]
) -> None:
    found, url = receiver
    service = Service(tmp_path)
    hook = service.hooks.add(url)
    job = service.create(service.upload(chats(20)))
    with running(service, needs_key=False):
        service.jobs.move(job.id, "cancelled", "Fine-tuning job cancelled")
        found.wait(1)
    headers, body = found.taken[0]
    with OpenAI(api_key="none", webhook_secret=hook.secret) as client:
        event = client.webhooks.unwrap(body, headers)
        assert event.type == "fine_tuning.job.cancelled"
        assert event.data.id == job.id
        with pytest.raises(openai.InvalidWebhookSignatureError):
            client.webhooks.unwrap(body + b" ", headers)
    assert service.hooks.deliveries()[0].sent_at


def test_a_message_that_is_refused_is_sent_again_the_same(
    tmp_path: Path, receiver: tuple[Receiver, str]
) -> None:
    found, url = receiver
    found.refusals = 2
    now = [1000.0]
    service = Service(tmp_path)
    service.hooks = Hooks(service.database, clock=lambda: now[0])
    service.hooks.add(url)
    job = service.create(service.upload(chats(20)))
    service.jobs = type(service.jobs)(service.database, clock=lambda: now[0])
    service.jobs.move(job.id, "cancelled", "Fine-tuning job cancelled")
    with running(service, needs_key=False):

        def is_tried(count: int) -> bool:
            return found.tried >= count

        for count in (1, 2):
            with found.changed:
                assert found.changed.wait_for(partial(is_tried, count), 30)
            time.sleep(0.2)  # until what came of it is noted
            now[0] += 3600
        found.wait(1)
    (delivery,) = service.hooks.deliveries()
    assert delivery.tries == 3
    assert found.taken[0][0]["webhook-id"] == delivery.id


def test_each_message_is_given_to_one_server_at_a_time(tmp_path: Path) -> None:
    service = Service(tmp_path)
    service.hooks.add("https://example.invalid/hook")
    for _ in range(30):
        job = service.create(service.upload(chats(2)), request_hash=str(_))
        service.jobs.move(job.id, "cancelled", "Fine-tuning job cancelled")
    given: list[str] = []

    def take() -> None:
        while due := service.hooks.due():
            given.extend(one.delivery.id for one in due)

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(given) == len(set(given)) == 30


def test_addresses_are_checked_and_removed(tmp_path: Path) -> None:
    hooks = Service(tmp_path).hooks
    for url in ("ftp://host/x", "file:///etc/passwd", "https://", "https://user:word@host/x"):
        with pytest.raises(ConfigError):
            hooks.add(url)
    row = hooks.add("https://example.invalid/hook")
    assert hooks.remove(row.id)
    assert not hooks.remove(row.id)
    assert not hooks.list()
