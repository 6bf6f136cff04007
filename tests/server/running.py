"""A server that runs, for tests that ask it over a socket."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

from luthier.pipeline import Answering
from luthier.server import Base, Settings, create_app
from own_service import Service


@contextmanager
def running(service: Service, answering: Answering | None = None, **settings: Any) -> Iterator[str]:
    """Within, a server of the service answers at this address."""
    bases = {"tiny/tiny-model": Base("tiny/tiny-model", str(service.model()))}
    app = create_app(service, Settings(bases, **settings), answering)
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False))
    thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
    finally:
        server.should_exit = True
        thread.join()
        listening.close()


@contextmanager
def working(service: Service, **settings: Any) -> Iterator[None]:
    """Within, a worker works on the service's jobs."""
    over = threading.Event()
    worker = service.worker(**settings)
    thread = threading.Thread(target=worker.run, args=(over.is_set, over.wait), daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
