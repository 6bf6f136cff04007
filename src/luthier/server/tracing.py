"""Traces of requests by OpenTelemetry, where its environment variables ask for them.

Source: https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/
"""

import os
from importlib.metadata import version
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI

from luthier.errors import ConfigError, missing_package

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter

WANTED = "OTEL_TRACES_EXPORTER"
UNTRACED = "health,ready,metrics"
"""Asked all the time, by those who look whether we live."""


def trace(app: FastAPI) -> None:
    """Trace an application's requests; nothing where nobody asks for it.

    Where traces go, and what the service is called, OpenTelemetry's own variables say. Raises
    ConfigError where they ask for what is not known, or its packages are missing.
    """
    wanted = os.environ.get(WANTED, "none")
    if wanted in ("", "none"):
        return
    if find_spec("opentelemetry.instrumentation") is None:
        raise missing_package("opentelemetry-instrumentation-fastapi", "traces", where=WANTED)
    from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    named: dict[str, Any] = {"service.version": version("luthier")}
    if not os.environ.get("OTEL_SERVICE_NAME"):
        named["service.name"] = "luthier"
    provider = TracerProvider(resource=Resource.create(named))
    provider.add_span_processor(BatchSpanProcessor(_exporter(wanted)))
    FastAPIInstrumentor.instrument_app(
        app,
        tracer_provider=provider,
        excluded_urls=UNTRACED,
        exclude_spans=["receive", "send"],  # one for each token of a stream
    )


def _exporter(wanted: str) -> "SpanExporter":
    if wanted == "console":
        from opentelemetry.sdk.trace.export import ConsoleSpanExporter

        return ConsoleSpanExporter()
    if wanted != "otlp":
        raise ConfigError(f"is {wanted!r}", where=WANTED, accepted="otlp, console or none")
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter()
