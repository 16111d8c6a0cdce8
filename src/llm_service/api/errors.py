"""How an error looks on the wire: one envelope, `{"detail": {"error": CODE, "message": TEXT, ...}}`."""

from typing import Any

import msgspec
import structlog
from litestar import MediaType, Request, Response
from litestar.exceptions import HTTPException
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import Example

from llm_service.errors import (
    BodyTooLarge,
    InternalError,
    MalformedBody,
    MethodNotAllowed,
    RequestError,
    RouteNotFound,
    UnsupportedMediaType,
    ValidationError,
)
from llm_service.logs import get_logger

log = get_logger(__name__)


class ErrorPlace(msgspec.Struct, frozen=True):
    loc: list[str | int]
    msg: str


class ErrorDetail(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`error` is the code; the other fields are there when they help."""

    error: str
    message: str
    errors: list[ErrorPlace] | None = None
    valid_values: list[str] | None = None
    limit_results: str | None = None
    user_id: str | None = None
    job_id: str | None = None
    invalid_ids: list[str] | None = None
    status: str | None = None
    request_id: str | None = None


class ErrorResponse(msgspec.Struct, frozen=True):
    detail: ErrorDetail


def envelope(error: RequestError) -> dict[str, Any]:
    return {"detail": {"error": error.code, "message": error.message, **error.context}}


def answer(error: RequestError) -> Response[dict[str, Any]]:
    return Response(
        envelope(error), status_code=error.status, headers=error.headers, media_type=MediaType.JSON
    )


def on_request_error(_: Request[Any, Any, Any], error: RequestError) -> Response[dict[str, Any]]:
    if error.status >= 500:
        log.warning("request failed", error=error.code, reason=error.message)
    return answer(error)


def on_http_exception(request: Request[Any, Any, Any], error: HTTPException) -> Response[dict[str, Any]]:
    """Litestar's own refusals, in our words."""
    match error.status_code:
        case 404:
            ours: RequestError = RouteNotFound("There is nothing at this address.")
        case 405:
            ours = MethodNotAllowed("This address does not take this method.", method=request.method)
            ours.headers = dict(error.headers or {})
        case 413:
            ours = BodyTooLarge()
        case 415:
            ours = UnsupportedMediaType("Content-Type must be application/json.")
        case 400 if _lacks_body(error):
            ours = MalformedBody("The body is empty; it must be a JSON object.")
        case status if status < 500:
            ours = ValidationError(error.detail, ["request"])
        case _:
            return on_bug(request, error)
    return answer(ours)


def _lacks_body(error: HTTPException) -> bool:
    return isinstance(error.extra, list) and any(item.get("key") == "data" for item in error.extra)


def on_bug(_: Request[Any, Any, Any], error: Exception) -> Response[dict[str, Any]]:
    log.error("unhandled error", exc_info=error)
    return answer(InternalError(str(structlog.contextvars.get_contextvars().get("request_id", ""))))


EXCEPTION_HANDLERS: dict[int | type[Exception], Any] = {
    RequestError: on_request_error,
    HTTPException: on_http_exception,
    Exception: on_bug,
}


def documented(**kinds: tuple[type[RequestError], ...]) -> dict[int, ResponseSpec]:
    """Entries for a route's `responses`: the statuses as `s400=(InvalidCursor, ...)`, each code with an example."""
    return {
        int(status[1:]): ResponseSpec(
            data_container=ErrorResponse,
            generate_examples=False,
            description=", ".join(kind.__name__ for kind in errors),
            examples=[
                Example(id=kind.__name__, summary=kind.__name__, value=_example(kind)) for kind in errors
            ],
        )
        for status, errors in kinds.items()
    }


def _example(kind: type[RequestError]) -> dict[str, Any]:
    detail: dict[str, Any] = {"error": kind.__name__, "message": (kind.__doc__ or "What was wrong and what is allowed.").split("\n")[0]}
    if issubclass(kind, ValidationError):
        detail["errors"] = [{"loc": ["body", "username"], "msg": "Expected `str` of length <= 255"}]
    return {"detail": detail}
