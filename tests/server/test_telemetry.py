"""Requests are traced where OpenTelemetry's variables ask for it, over its own protocol."""

import gzip
import threading
import time
import zlib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
from fastapi.testclient import TestClient

from luthier.errors import ConfigError
from luthier.server import Settings, create_app
from luthier.server.tracing import trace
from own_service import Service

pytestmark = pytest.mark.enable_socket
pytest.importorskip("opentelemetry.instrumentation.fastapi", reason="it is not installed")


class Collector(BaseHTTPRequestHandler):
    """Keeps what it is sent."""

    sent: ClassVar[list[tuple[str, bytes]]] = []

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        kind = self.headers.get("content-encoding")
        if kind:
            body = gzip.decompress(body) if kind == "gzip" else zlib.decompress(body)
        self.sent.append((self.path, body))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *args: Any) -> None: ...


@pytest.fixture
def collector() -> Iterator[str]:
    Collector.sent.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def told() -> list[tuple[str, str]]:
    """Service and name of each span that was sent."""
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    found = []
    for path, body in Collector.sent:
        assert path == "/v1/traces"
        for sent in ExportTraceServiceRequest.FromString(body).resource_spans:
            named = {a.key: a.value.string_value for a in sent.resource.attributes}
            found += [(named["service.name"], span.name)
                      for scope in sent.scope_spans for span in scope.spans]  # fmt: skip
    return found


def test_spans_reach_a_collector(
    tmp_path: Path, collector: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector)
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
    app = create_app(Service(tmp_path), Settings({}, needs_key=False))
    trace(app)
    with TestClient(app, client=("127.0.0.1", 1)) as client:
        client.get("/v1/models")
        client.get("/v1/files/file-absent")
        client.get("/health")
        deadline = time.monotonic() + 10
        while len(spans := told()) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
    assert {service for service, _ in spans} == {"luthier"}
    assert sorted(name for _, name in spans) == ["GET /v1/files/{file_id}", "GET /v1/models"]


def test_what_is_not_known_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = create_app(Service(tmp_path), Settings({}))
    trace(app)
    assert not getattr(app, "_is_instrumented_by_opentelemetry", False)
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "zipkin")
    with pytest.raises(ConfigError, match="otlp, console or none"):
        trace(app)
