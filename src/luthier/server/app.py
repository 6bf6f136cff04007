"""The application: all addresses under /v1, the layers around them, errors in OpenAI's form."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from starlette.exceptions import HTTPException

from luthier.errors import LuthierError
from luthier.jobs import Service
from luthier.pipeline import Engines, Readers
from luthier.server import (
    batches,
    chats,
    evals,
    feedback,
    files,
    graders,
    models,
    operations,
    responses,
    texts,
    tuning,
)
from luthier.server.access import Caller, Pace
from luthier.server.batches import stop_batch, work_batch
from luthier.server.clerk import Clerk, Work
from luthier.server.errors import (
    ApiError,
    Envelope,
    on_api_error,
    on_http_error,
    on_invalid_request,
    on_luthier_error,
)
from luthier.server.eval_runs import work_run
from luthier.server.figures import Figures
from luthier.server.protection import Protection
from luthier.server.settings import Settings

PARTS = (
    files, graders, tuning, models, chats, responses, texts, evals, batches, feedback,
)  # fmt: skip

FAULTS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": Envelope, "description": "What was asked for cannot be answered"},
    "5XX": {"model": Envelope, "description": "The server cannot answer now"},
}


@asynccontextmanager
async def _working(app: FastAPI) -> AsyncIterator[None]:
    """While the server answers, its clerk works."""
    state = app.state
    itself = Caller(
        "", frozenset(), "", state.service, state.settings, state.engines, state.readers
    )
    works: dict[str, Work] = {"batch": work_batch, "eval_run": work_run}
    stops: dict[str, Work] = {"batch": stop_batch}
    working = asyncio.create_task(Clerk(app, state.service, itself, works, stops).run())
    try:
        yield
    finally:
        working.cancel()
        with suppress(asyncio.CancelledError):
            await working


def create_app(
    service: Service,
    settings: Settings,
    engines: Engines | None = None,
    readers: Readers | None = None,
) -> FastAPI:
    """The server of a service; without engines and readers its models are not asked here."""
    # No pages of documentation: they load their scripts from elsewhere.
    app = FastAPI(
        title="Luthier", version=version("luthier"), docs_url=None, redoc_url=None,
        lifespan=_working, responses=FAULTS,
    )  # fmt: skip
    app.state.service, app.state.settings, app.state.pace = service, settings, Pace()
    app.state.engines, app.state.readers = engines, readers
    app.state.figures = Figures(service.jobs)
    app.include_router(operations.router)
    app.include_router(evals.pages)
    for part in PARTS:
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
