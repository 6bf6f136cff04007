"""The application: all addresses under /v1, the layers around them, errors in OpenAI's form."""

from importlib.metadata import version

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from starlette.exceptions import HTTPException

from luthier.errors import LuthierError
from luthier.jobs import Service
from luthier.pipeline import Engines, Readers
from luthier.server import answers, files, models, operations, texts, tuning
from luthier.server.access import Pace
from luthier.server.errors import (
    ApiError,
    on_api_error,
    on_http_error,
    on_invalid_request,
    on_luthier_error,
)
from luthier.server.figures import Figures
from luthier.server.protection import Protection
from luthier.server.settings import Settings


def create_app(
    service: Service,
    settings: Settings,
    engines: Engines | None = None,
    readers: Readers | None = None,
) -> FastAPI:
    """The server of a service; without engines and readers its models are not asked here."""
    # No pages of documentation: they load their scripts from elsewhere.
    app = FastAPI(title="Luthier", version=version("luthier"), docs_url=None, redoc_url=None)
    app.state.service, app.state.settings, app.state.pace = service, settings, Pace()
    app.state.engines, app.state.readers = engines, readers
    app.state.figures = Figures(service.jobs)
    app.include_router(operations.router)
    for part in (files, tuning, models, answers, texts):
        app.include_router(part.router, prefix="/v1")
    for error, answer in (
        (ApiError, on_api_error),
        (HTTPException, on_http_error),
        (RequestValidationError, on_invalid_request),
        (LuthierError, on_luthier_error),
    ):
        app.add_exception_handler(error, answer)
    if settings.origins:
        app.add_middleware(
            CORSMiddleware, allow_origins=settings.origins, allow_methods=["*"], allow_headers=["*"]
        )
    app.add_middleware(Protection, limits=settings.limits, figures=app.state.figures)
    return app
