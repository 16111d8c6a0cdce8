"""GET /jobs, GET /jobs/{job_id} and its old name GET /status/{job_id}."""

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any
from uuid import UUID

import msgspec
from litestar import Request, get
from litestar.params import FromPath, QueryParameter

from llm_service.api.errors import documented
from llm_service.api.jobs_query import read_jobs_query
from llm_service.api.services import services_of
from llm_service.errors import (
    ConflictingFilters,
    InternalError,
    InvalidAPISecret,
    InvalidCursor,
    InvalidLimitResults,
    InvalidStatusFilter,
    InvalidTimeRange,
    InvalidUserID,
    JobNotFound,
    ServiceUnavailable,
    ValidationError,
)
from llm_service.jobs.filters import STATUS_FILTERS, Cursor
from llm_service.jobs.report import Usage, usage_of
from llm_service.jobs.store import listing
from llm_service.jobs.store.listing import JobRecord, JobRow


class JobSummary(msgspec.Struct, kw_only=True):
    """A job in a list. Times are ISO 8601 with offset; null is unknown or not yet."""

    job_id: UUID
    workflow_name: str
    status: str
    priority: int
    user_id: UUID | None
    username: str | None
    action: str | None
    created_at: datetime
    started_at: datetime | None
    completed_at: datetime | None
    duration_ms: int | None
    error_message: str | None
    error_code: str | None
    attempt: int
    webhook_state: str
    total_tokens: int | None
    cost_usd: float | None


class JobsListResponse(msgspec.Struct, kw_only=True):
    """One page, newest first. `limit` is the one in force; `total` counts every match before paging."""

    jobs: list[JobSummary]
    total: int | None
    limit: int
    offset: int
    total_is_capped: bool
    next_cursor: str | None


class AttemptDetail(msgspec.Struct, kw_only=True):
    """One claim by a worker. `outcome`: running, completed, failed, cancelled, released or lost."""

    worker: str
    started_at: datetime
    ended_at: datetime | None
    outcome: str
    error_code: str | None


class CallDetail(msgspec.Struct, kw_only=True):
    """One model call. `prompt` and `answer` are kept in debug_mode only."""

    step: str
    provider: str
    model: str
    status: str
    started_at: datetime
    completed_at: datetime | None
    latency_ms: int | None
    input_tokens: int | None
    output_tokens: int | None
    cost_usd: float | None
    retries: int
    error_code: str | None
    error_message: str | None
    prompt: list[Any] | None
    answer: str | None


class WebhookTry(msgspec.Struct, kw_only=True):
    number: int
    started_at: datetime
    status_code: int | None
    latency_ms: int | None
    response: str | None
    error: str | None


class WebhookDetail(msgspec.Struct, kw_only=True):
    """The delivery of a job's webhook; `webhook_id` is stable over its tries."""

    state: str
    webhook_id: str | None
    next_attempt_at: datetime | None
    attempts: list[WebhookTry]


class JobDetail(JobSummary, kw_only=True):
    """Everything about one job."""

    input_data: Any
    result: Any
    queued_at: datetime | None
    max_attempts: int
    debug_mode: bool
    webhook_url: str | None
    retried_from: UUID | None
    request_id: str | None
    webhook: WebhookDetail
    attempts: list[AttemptDetail]
    llm_calls: list[CallDetail]
    usage: Usage


def summary_of(row: JobRow) -> JobSummary:
    return JobSummary(**summary_fields(row))


def summary_fields(row: JobRow) -> dict[str, Any]:
    return {
        "job_id": row.id,
        "workflow_name": row.workflow_name,
        "status": row.status,
        "priority": row.priority,
        "user_id": row.user_id,
        "username": row.username,
        "action": row.action,
        "created_at": row.created_at,
        "started_at": row.started_at,
        "completed_at": row.completed_at,
        "duration_ms": row.duration_ms,
        "error_message": row.error_message,
        "error_code": row.error_code,
        "attempt": row.attempt,
        "webhook_state": row.webhook_state,
        "total_tokens": row.total_tokens,
        "cost_usd": _dollars(row.cost_usd),
    }


def detail_of(record: JobRecord) -> JobDetail:
    job = record.job
    paid = [call for call in record.calls if call.status == "succeeded"]
    return JobDetail(
        **summary_fields(job),
        input_data=msgspec.Raw(job.input_data.encode()),
        result=None if job.result is None else msgspec.Raw(job.result.encode()),
        queued_at=job.queued_at,
        max_attempts=job.max_attempts,
        debug_mode=job.debug_mode,
        webhook_url=job.webhook_url,
        retried_from=job.retried_from,
        request_id=job.request_id,
        webhook=_webhook_of(record),
        attempts=[msgspec.convert(row._mapping, AttemptDetail) for row in record.attempts],  # noqa: SLF001
        llm_calls=[
            msgspec.convert({**row._mapping, "cost_usd": _dollars(row.cost_usd)}, CallDetail)  # noqa: SLF001
            for row in record.calls
        ],
        usage=usage_of(
            len(paid),
            _sum(call.input_tokens for call in paid),
            _sum(call.output_tokens for call in paid),
            _sum(
                total for call in paid if (total := _sum([call.input_tokens, call.output_tokens])) is not None
            ),
            _cost(paid),
        ),
    )


def _webhook_of(record: JobRecord) -> WebhookDetail:
    delivery = record.delivery
    return WebhookDetail(
        state=record.job.webhook_state,
        webhook_id=None if delivery is None else delivery.webhook_id,
        next_attempt_at=None if delivery is None else delivery.next_attempt_at,
        attempts=[msgspec.convert(row._mapping, WebhookTry) for row in record.tries],  # noqa: SLF001
    )


def _dollars(amount: Decimal | None) -> float | None:
    return None if amount is None else float(amount)


def _sum(numbers: Any) -> int | None:
    known = [number for number in numbers if number is not None]
    return sum(known) if known else None


def _cost(paid: list[Any]) -> Decimal | None:
    """The cost of all calls; None as soon as one of them is not known."""
    costs = [call.cost_usd for call in paid]
    return sum(costs, Decimal(0)) if costs and None not in costs else None


def _query(name: str, description: str, **schema: Any) -> QueryParameter:
    """A parameter read as text and checked by us, documented as what it is."""
    return QueryParameter(
        name=name, required=False, description=description, schema_extra={"oneOf": None, **schema}
    )


LIMIT_RESULTS = (
    "How many, or since when; exactly one of seven uses. Absent or empty: no effect. `1` to `500`: exactly so "
    "many records, overrides `limit`. `Today`: created since 00:00 UTC. `7 Days`, `30 Days`: created in the "
    "last 168 or 720 hours. A time window leaves `limit` and `offset` alone. The pages offer 25, 50, 100, 200, "
    "Today, 7 Days and 30 Days."
)
Text = str | None


@get(
    "/jobs",
    tags=["Jobs"],
    summary="List jobs, newest first",
    description="All filters are AND-ed. `total` is exact up to 10,000 and capped there unless `count=exact`.",
    raises=[],
    responses=documented(
        s400=(
            InvalidLimitResults,
            InvalidStatusFilter,
            InvalidUserID,
            InvalidCursor,
            InvalidTimeRange,
            ConflictingFilters,
        ),
        s401=(InvalidAPISecret,),
        s422=(ValidationError,),
        s500=(InternalError,),
        s503=(ServiceUnavailable,),
    ),
)
async def list_jobs(
    request: Request[Any, Any, Any],
    status: Annotated[
        Text,
        _query(
            "status",
            "`running` is pending or processing: not finished yet.",
            enum=list(STATUS_FILTERS),
            default="all",
        ),
    ] = None,
    status_filter: Annotated[
        Text, _query("status_filter", "Another name of `status`.", enum=list(STATUS_FILTERS))
    ] = None,
    user_id: Annotated[Text, _query("user_id", "Whose jobs.", type="string", format="uuid")] = None,
    username: Annotated[Text, _query("username", "Exact match.", type="string", maxLength=255)] = None,
    action: Annotated[Text, _query("action", "Exact match.", type="string", maxLength=255)] = None,
    workflow_name: Annotated[
        Text, _query("workflow_name", "Exact match.", type="string", maxLength=100)
    ] = None,
    error_code: Annotated[
        Text, _query("error_code", "Exact match, e.g. ModelTimeout.", type="string")
    ] = None,
    limit: Annotated[
        Text, _query("limit", "Page size.", type="integer", minimum=1, maximum=200, default=50)
    ] = None,
    offset: Annotated[
        Text, _query("offset", "Rows to skip.", type="integer", minimum=0, maximum=100_000, default=0)
    ] = None,
    limit_results: Annotated[
        Text,
        _query(
            "limit_results",
            LIMIT_RESULTS,
            anyOf=[
                {"enum": ["", "Today", "7 Days", "30 Days"]},
                {"pattern": "^0*([1-9][0-9]?|[1-4][0-9]{2}|500)$"},
            ],
            type="string",
            examples=["25", "50", "100", "200", "Today", "7 Days", "30 Days"],
        ),
    ] = None,
    created_after: Annotated[
        Text, _query("created_after", "RFC 3339 with offset, inclusive.", type="string", format="date-time")
    ] = None,
    created_before: Annotated[
        Text, _query("created_before", "RFC 3339 with offset, exclusive.", type="string", format="date-time")
    ] = None,
    cursor: Annotated[
        Text, _query("cursor", "`next_cursor` of the page before; not with `offset`.", type="string")
    ] = None,
    count: Annotated[
        Text,
        _query(
            "count",
            "How `total` is counted; `none` leaves it null.",
            enum=["capped", "exact", "none"],
            default="capped",
        ),
    ] = None,
) -> JobsListResponse:
    services = services_of(request)
    wanted = read_jobs_query(request.query_params, await services.database.clock.now())
    page = await listing.page(
        services.database,
        wanted.filters,
        limit=wanted.limit,
        offset=wanted.offset,
        cursor=wanted.cursor,
        count=wanted.count,
    )
    last = page.rows[-1] if page.rows and page.has_more else None
    return JobsListResponse(
        jobs=[summary_of(row) for row in page.rows],
        total=page.total,
        limit=wanted.limit,
        offset=wanted.offset,
        total_is_capped=page.total_is_capped,
        next_cursor=None
        if last is None
        else Cursor.after(last.created_at, last.id, wanted.fingerprint).text(),
    )


@get(
    ["/jobs/{job_id:str}", "/status/{job_id:str}"],
    tags=["Jobs"],
    summary="One job with everything about it",
    raises=[],
    responses=documented(
        s401=(InvalidAPISecret,), s404=(JobNotFound,), s500=(InternalError,), s503=(ServiceUnavailable,)
    ),
)
async def get_job(request: Request[Any, Any, Any], job_id: FromPath[str]) -> JobDetail:
    record = await listing.get_job(services_of(request).database, parse_job_id(job_id))
    if record is None:
        raise JobNotFound(job_id)
    return detail_of(record)


def parse_job_id(text: str) -> UUID:
    """An id that is no UUID names no job."""
    try:
        return UUID(text)
    except ValueError:
        raise JobNotFound(text) from None
