"""How an error looks on the wire: one envelope, `{"detail": {"error": CODE, "message": TEXT, ...}}`."""

from collections.abc import Mapping
from typing import Any

import msgspec
import structlog
from litestar import MediaType, Request, Response
from litestar.exceptions import HTTPException
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import Example
from msgspec import UNSET, UnsetType

from llm_service.absence import sqlstate_of
from llm_service.errors import (
    BodyTooLarge,
    ConflictingFilters,
    EmptyJobIdsList,
    IdempotencyKeyReused,
    InternalError,
    InvalidAPISecret,
    InvalidCursor,
    InvalidInputData,
    InvalidJobIDs,
    InvalidLimitResults,
    InvalidStatusFilter,
    InvalidTimeRange,
    InvalidUserID,
    JobNotCancellable,
    JobNotFound,
    JobNotRetryable,
    MalformedBody,
    MethodNotAllowed,
    RequestError,
    RouteNotFound,
    ServiceUnavailable,
    TooManyRequests,
    UnknownWorkflow,
    UnsafeWebhookURL,
    UnsupportedMediaType,
    ValidationError,
    WebhookNotRedeliverable,
)
from llm_service.logs import get_logger

log = get_logger(__name__)


class ErrorPlace(msgspec.Struct, frozen=True):
    """A place in the request, e.g. `["body", "username"]`, and what is wrong there."""

    loc: list[str | int]
    msg: str


class ErrorDetail(msgspec.Struct, frozen=True, kw_only=True):
    """`error` is the code, `message` says what was wrong and what is allowed; other fields come when they help.

    Values repeated from the request are cut at 100 characters. More context fields may be added.
    """

    error: str
    message: str
    errors: list[ErrorPlace] | UnsetType = UNSET
    valid_values: list[str] | UnsetType = UNSET
    limit_results: str | UnsetType = UNSET
    user_id: str | UnsetType = UNSET
    job_id: str | UnsetType = UNSET
    invalid_ids: list[str] | UnsetType = UNSET
    status: str | UnsetType = UNSET
    request_id: str | UnsetType = UNSET


class ErrorResponse(msgspec.Struct, frozen=True):
    """The one envelope of every error."""

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


CUT_OFF = "client disconnected prematurely"
"""Litestar's words for a caller who has gone in the middle of a body. That is no fault of ours."""


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
        case 500 if error.detail == CUT_OFF:
            ours = MalformedBody("The connection ended before the body did.")
        case status if status < 500:
            ours = ValidationError(error.detail, ["request"])
        case _:
            return on_bug(request, error)
    return answer(ours)


def _lacks_body(error: HTTPException) -> bool:
    return isinstance(error.extra, list) and any(item.get("key") == "data" for item in error.extra)


MISSING = frozenset({"42P01", "42703"})
"""SQLSTATEs of a table or column that is not there."""


def on_bug(_: Request[Any, Any, Any], error: Exception) -> Response[dict[str, Any]]:
    if (state := sqlstate_of(error)) in MISSING:
        log.error("the database lacks a table or column: run `llm-service migrate`", sqlstate=state)
        return answer(ServiceUnavailable())
    log.error("unhandled error", exc_info=error)
    return answer(InternalError(str(structlog.contextvars.get_contextvars().get("request_id", ""))))


EXCEPTION_HANDLERS: dict[int | type[Exception], Any] = {
    RequestError: on_request_error,
    HTTPException: on_http_exception,
    Exception: on_bug,
}


EXAMPLES: Mapping[str, RequestError] = {
    error.code: error
    for error in (
        InvalidLimitResults(
            "Invalid limit_results value: 'Yesterday'. "
            "Expected: numeric value (1-500), 'Today', '7 Days', or '30 Days'",
            "Yesterday",
        ),
        InvalidStatusFilter(
            "status must be one of: all, running, pending, processing, completed, failed, cancelled.",
            status="done",
            valid_values=["all", "running", "pending", "processing", "completed", "failed", "cancelled"],
        ),
        InvalidUserID("user_id must be a UUID.", user_id="jane_smith"),
        InvalidCursor("cursor must be a next_cursor of an earlier answer, unchanged.", cursor="page-2"),
        InvalidTimeRange("created_after must be earlier than created_before."),
        ConflictingFilters("cursor and offset are two ways of paging; give one of them."),
        EmptyJobIdsList("job_ids must name 1 to 500 jobs; it is empty."),
        InvalidJobIDs("Every entry of job_ids must be a UUID.", invalid_ids=["job-17"]),
        MalformedBody("The body is not JSON: Input data was truncated."),
        InvalidAPISecret(),
        JobNotFound("01981c5e-7b1a-7c3e-9d52-2f6a1c0b9e44"),
        RouteNotFound("There is nothing at this address."),
        MethodNotAllowed("This address does not take this method.", method="PUT"),
        BodyTooLarge(),
        UnsupportedMediaType("Content-Type must be application/json.", content_type="text/plain"),
        JobNotCancellable(
            "A job that is completed can't be cancelled; only pending and processing ones can.",
            status="completed",
        ),
        JobNotRetryable(
            "A job that is pending can't be retried; wait for its end or cancel it.", status="pending"
        ),
        WebhookNotRedeliverable(
            "The webhook of a job that is processing can't be sent again; it is sent when the job ends.",
            status="processing",
        ),
        ValidationError("Expected `str` of length <= 255", ["body", "username"]),
        InvalidInputData("this field is required", ["body", "input_data", "prompt"]),
        UnknownWorkflow(
            "workflow_name names no workflow of this service.",
            workflow_name="emergency_contact",
            valid_values=["completion", "driving_directions", "emergency_contacts", "mission_generation"],
        ),
        UnsafeWebhookURL("webhook_url is not allowed: it must begin with https://."),
        IdempotencyKeyReused(
            "This Idempotency-Key was used with another body; a key belongs to one request.",
            idempotency_key="report-2026-01-31",
        ),
        TooManyRequests("Too many requests; try again after the seconds in Retry-After.", retry_after_s=5),
        ServiceUnavailable(),
        InternalError("0198a4f0c2d17b3e8f5a6d7c9b0e1f23"),
    )
}
"""What each code looks like, for the OpenAPI document."""


def documented(**kinds: tuple[type[RequestError], ...]) -> dict[int, ResponseSpec]:
    """Entries for a route's `responses`, the statuses as `s400=(InvalidCursor, ...)`. Each code has its example.

    Where a secret is asked for, too many wrong ones are 429.
    """
    if "s401" in kinds:
        kinds = {"s429": (TooManyRequests,)} | kinds
    return {
        int(status[1:]): ResponseSpec(
            data_container=ErrorResponse,
            generate_examples=False,
            description=", ".join(kind.__name__ for kind in errors),
            examples=[
                Example(id=kind.__name__, summary=kind.__name__, value=envelope(EXAMPLES[kind.__name__]))
                for kind in errors
            ],
        )
        for status, errors in kinds.items()
    }
