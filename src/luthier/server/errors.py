"""Errors as OpenAI's clients understand them: {"error": {message, type, param, code}}."""

from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from luthier.errors import ConfigError, DataError, JobError, LuthierError, StorageError
from luthier.pipeline.engines import LoadingError

TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "invalid_request_error",
    408: "timeout",
    409: "conflict",
    413: "invalid_request_error",
    422: "invalid_request_error",
    429: "rate_limit_error",
    503: "service_unavailable",
}
"""Status -> the word for its kind; `server_error` for all others."""


class Fault(BaseModel):
    """What is wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class Envelope(BaseModel):
    """An answer that is an error."""

    error: Fault


class ApiError(Exception):
    """An answer that is an error."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code
        self.headers = headers or {}

    def response(self) -> JSONResponse:
        """What is sent."""
        return JSONResponse(self.body(), self.status, self.headers)

    def body(self) -> dict[str, Any]:
        """The envelope."""
        kind = TYPES.get(self.status, "server_error")
        fault = Fault(message=self.message, type=kind, param=self.param, code=self.code)
        return Envelope(error=fault).model_dump()


def not_found(kind: str, name: str, *, param: str | None = "id") -> ApiError:
    """There is no such thing."""
    return ApiError(404, f"No such {kind}: {name}", param=param, code="not_found")


def no_model(name: str) -> ApiError:
    """There is no such model, or the caller may not use it."""
    message = f"The model `{name}` does not exist or you do not have access to it."
    return ApiError(404, message, param="model", code="model_not_found")


async def on_api_error(request: Request, error: Exception) -> JSONResponse:
    """Our own errors."""
    assert isinstance(error, ApiError), "registered for it"
    return error.response()


async def on_http_error(request: Request, error: Exception) -> JSONResponse:
    """Starlette's: unknown addresses, wrong methods."""
    assert isinstance(error, HTTPException), "registered for it"
    if error.status_code == 404:
        message = f"Invalid URL ({request.method} {request.url.path})"
        return ApiError(404, message, code="unknown_url").response()
    headers = dict(error.headers or {})
    return ApiError(error.status_code, str(error.detail), headers=headers).response()


async def on_invalid_request(request: Request, error: Exception) -> JSONResponse:
    """A body or a parameter of the wrong form."""
    assert isinstance(error, RequestValidationError), "registered for it"
    first = error.errors()[0]
    place = [str(part) for part in first["loc"] if part not in ("body", "query", "path")]
    param = ".".join(place) or None
    message = f"{param}: {first['msg']}" if param else str(first["msg"])
    return ApiError(400, message, param=param, code=str(first["type"])).response()


async def on_luthier_error(request: Request, error: Exception) -> JSONResponse:
    """What the rooms below say."""
    assert isinstance(error, LuthierError), "registered for it"
    if isinstance(error, StorageError):
        # Where things are kept is nobody's business outside.
        return ApiError(
            503, "The service cannot reach its database or storage; try again.",
            code="storage_unavailable", headers={"retry-after": "5"},
        ).response()  # fmt: skip
    if isinstance(error, LoadingError):
        return ApiError(
            503, "The model is being loaded; try again.", code="model_loading",
            headers={"retry-after": "10"},
        ).response()  # fmt: skip
    status = 400 if isinstance(error, ConfigError | DataError | JobError) else 500
    return ApiError(status, str(error), code="invalid_value" if status == 400 else None).response()


def bug() -> ApiError:
    """Anything else is a bug of ours; what it says stays in the log."""
    return ApiError(500, "The server had an error while processing your request. Sorry about that!")
