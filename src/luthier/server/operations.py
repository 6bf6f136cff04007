"""/health, /ready, /metrics: for those who run the server."""

from fastapi import APIRouter, Request
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from luthier.server.access import Reader, service_of
from luthier.server.wire import Wire

router = APIRouter()


@router.get("/health")
async def health() -> Wire:
    """The process lives, however busy it is."""
    return {"status": "ok"}


@router.get("/ready")
def ready(request: Request) -> Wire:
    """The database and the storage can be used; else 503."""
    service = service_of(request)
    service.jobs.count()
    service.storage.check()
    return {"status": "ready"}


@router.get("/metrics", include_in_schema=False)  # Prometheus knows what it says
def metrics(request: Request, caller: Reader) -> PlainTextResponse:
    """Figures as Prometheus reads them."""
    found = generate_latest(request.app.state.figures.registry)
    return PlainTextResponse(found, media_type=CONTENT_TYPE_LATEST)
