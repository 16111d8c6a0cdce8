"""GET /jobs and DELETE /jobs/bulk."""

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any
from uuid import UUID

import msgspec
from litestar import Request, delete, get
from litestar.params import JSONBody, QueryParameter
from msgspec import Meta

from llm_service.api.body import StrictJSON
from llm_service.api.errors import documented
from llm_service.api.jobs_query import read_jobs_query
from llm_service.api.services import services_of
from llm_service.api.workflow import BODY_ERRORS
from llm_service.errors import (
    ECHO_LIMIT,
    ConflictingFilters,
    EmptyJobIdsList,
    InternalError,
    InvalidAPISecret,
    InvalidCursor,
    InvalidJobIDs,
    InvalidLimitResults,
    InvalidStatusFilter,
    InvalidTimeRange,
    InvalidUserID,
    MalformedBody,
    ServiceUnavailable,
    ValidationError,
)
from llm_service.jobs import cancel
from llm_service.jobs.filters import STATUS_FILTERS, Cursor
from llm_service.jobs.store import listing
from llm_service.jobs.store.listing import JobRow


class JobSummary(msgspec.Struct):
    """A job in a list. Times are ISO 8601 with offset; null is unknown or not yet.

    The fields are in the order of the first columns of `listing.SUMMARY`.
    """

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


def summary_of(row: JobRow) -> JobSummary:
    return JobSummary(*row[: len(JobSummary.__struct_fields__)])


def summary_fields(row: JobRow) -> dict[str, Any]:
    return dict(zip(JobSummary.__struct_fields__, row, strict=False))


def dollars(amount: Decimal | float | None) -> float | None:
    return None if amount is None else float(amount)


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

MAX_DELETED = 500
JOB_IDS_SCHEMA = {"minItems": 1, "maxItems": MAX_DELETED, "items": {"type": "string", "format": "uuid"}}


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
        # Its schema, an integer or one of the words, stands in openapi_facts.
        _query("limit_results", LIMIT_RESULTS),
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
        crowds=services.crowds,
        only_summaries=True,
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


class JobsDeleteRequest(msgspec.Struct, frozen=True, kw_only=True):
    job_ids: Annotated[list[Any], Meta(description="1 to 500 job ids.", extra_json_schema=JOB_IDS_SCHEMA)]


class JobsDeleteResponse(msgspec.Struct, frozen=True, kw_only=True):
    """What was there and is gone; unknown ids are skipped."""

    deleted_count: int
    job_ids: list[UUID]
    message: str


@delete(
    "/jobs/bulk",
    status_code=200,
    dto=StrictJSON[JobsDeleteRequest],
    return_dto=None,
    tags=["Jobs"],
    summary="Delete jobs for good",
    description="Unfinished ones are stopped first, and their webhook is not sent. Unknown ids are skipped.",
    raises=[],
    responses=documented(
        **BODY_ERRORS | {"s400": (MalformedBody, EmptyJobIdsList, InvalidJobIDs)},
        s422=(ValidationError,),
        s503=(ServiceUnavailable,),
    ),
)
async def delete_jobs(
    request: Request[Any, Any, Any], data: JSONBody[JobsDeleteRequest]
) -> JobsDeleteResponse:
    services = services_of(request)
    deleted = await cancel.delete(services.database, services.queue, _checked_ids(data.job_ids))
    count = len(deleted)
    return JobsDeleteResponse(
        deleted_count=count, job_ids=deleted, message=f"{count} {'job' if count == 1 else 'jobs'} deleted."
    )


def _checked_ids(texts: list[Any]) -> list[UUID]:
    if not texts:
        raise EmptyJobIdsList(f"job_ids must name 1 to {MAX_DELETED} jobs; it is empty.")
    if len(texts) > MAX_DELETED:
        raise ValidationError(f"must have at most {MAX_DELETED} ids", ["body", "job_ids"])
    wrong = [text for text in texts if not _is_uuid(text)]
    if wrong:
        shown = [str(text)[:ECHO_LIMIT] for text in wrong[:10]]
        raise InvalidJobIDs("Every entry of job_ids must be a UUID.", invalid_ids=shown)
    return list(dict.fromkeys(UUID(text) for text in texts))


def _is_uuid(text: object) -> bool:
    try:
        msgspec.convert(text, UUID)
    except msgspec.ValidationError:
        return False
    return True
