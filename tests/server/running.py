"""A server that runs, for tests that ask it over a socket."""

import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn

from luthier.pipeline import Engines, Readers
from luthier.server import Base, Settings, create_app
from own_service import Service


@contextmanager
def running(
    service: Service,
    engines: Engines | None = None,
    readers: Readers | None = None,
    more: Mapping[str, Path] = {},
    **settings: Any,
) -> Iterator[str]:
    """Within, a server of the service answers at this address; `more` are further models."""
    places = {"tiny/tiny-model": service.model(), **more}
    bases = {name: Base(name, str(place)) for name, place in places.items()}
    app = create_app(service, Settings(bases, **settings), engines, readers)
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
