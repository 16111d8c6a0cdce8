"""Reads: a page of jobs, how many there are, and one job with everything about it."""

from typing import Any, Literal, NamedTuple
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from llm_service.db import Database, once_more
from llm_service.jobs.filters import Cursor, JobFilters
from llm_service.jobs.model import JobAttempt, LLMCall, WebhookAttempt, WebhookDelivery, WorkflowJob

JobRow = sa.Row[Any]
"""One row as it was read, by column name."""

COUNT_CAP = 10_000
CountMode = Literal["capped", "exact", "none"]

SUMMARY = [
    getattr(WorkflowJob, name)
    for name in (
        "id workflow_name status priority user_id username action created_at started_at completed_at "
        "duration_ms error_message error_code attempt max_attempts webhook_state total_tokens cost_usd "
        "run_after lease_expires_at"
    ).split()
]
"""The columns of a list: the payloads `input_data` and `result` are not among them."""


class Page(NamedTuple):
    rows: list[sa.Row[Any]]
    has_more: bool
    total: int | None
    total_is_capped: bool


async def page(
    database: Database,
    filters: JobFilters,
    *,
    limit: int,
    offset: int = 0,
    cursor: Cursor | None = None,
    count: CountMode = "capped",
) -> Page:
    """One page, newest first, and the total under the same conditions."""

    async def read() -> Page:
        async with database.statement() as connection:
            await plan_for_the_values(connection)
            query = page_query(filters, limit=limit + 1, offset=offset, cursor=cursor)
            rows = list((await connection.execute(query)).all())
            total, capped = await _total(connection, filters, count)
        return Page(rows[:limit], len(rows) > limit, total, capped)

    return await once_more(read)


async def plan_for_the_values(connection: AsyncConnection) -> None:
    """From its sixth run on, PostgreSQL may plan a prepared statement once for all values.

    A plan for the average user sorts all that the busiest one ever did. The setting stays with the connection.
    """
    if "plans for the values" not in connection.info:
        await connection.execute(sa.text("SET plan_cache_mode = force_custom_plan"))
        connection.info["plans for the values"] = True


def page_query(
    filters: JobFilters, *, limit: int, offset: int = 0, cursor: Cursor | None = None
) -> sa.Select[Any]:
    query = sa.select(*SUMMARY).where(*filters.clauses()).order_by(*filters.order()).limit(limit)
    if cursor is not None:
        return query.where(cursor.clause())
    return query.offset(offset) if offset else query


def count_query(filters: JobFilters, cap: int | None) -> sa.Select[int]:
    """Counts the matches, looking at no more than `cap` of them."""
    matches: sa.Select[Any] = (
        sa.select(sa.literal_column("1")).select_from(WorkflowJob).where(*filters.clauses())
    )
    if cap is None:
        return sa.select(sa.func.count()).select_from(WorkflowJob).where(*filters.clauses())
    return sa.select(sa.func.count()).select_from(matches.order_by(*filters.order()).limit(cap).subquery())


async def _total(
    connection: AsyncConnection, filters: JobFilters, mode: CountMode
) -> tuple[int | None, bool]:
    if mode == "none":
        return None, False
    cap = COUNT_CAP + 1 if mode == "capped" else None
    counted = (await connection.execute(count_query(filters, cap))).scalar_one()
    if mode == "capped" and counted > COUNT_CAP:
        return COUNT_CAP, True
    return counted, False


class JobRecord(NamedTuple):
    """One job as it stands, with its side rows in the order in which they happened."""

    job: sa.Row[Any]
    attempts: list[sa.Row[Any]]
    calls: list[sa.Row[Any]]
    delivery: sa.Row[Any] | None
    tries: list[sa.Row[Any]]


PAYLOADS = {"input_data": WorkflowJob.input_data, "result": WorkflowJob.result}
_ONLY_OF_ONE = [
    getattr(WorkflowJob, name)
    for name in ("queued_at debug_mode webhook_url retried_from request_id worker").split()
]
# The payloads leave as the text they are: parsing and printing again could change a large number.
DETAIL = [
    *SUMMARY,
    *(sa.cast(column, sa.Text).label(name) for name, column in PAYLOADS.items()),
    *_ONLY_OF_ONE,
]


def _previewed(most: int) -> list[Any]:
    """Instead of whole payloads: their first `most` characters, indented, and how many characters each has."""
    pretty = {name: sa.func.jsonb_pretty(column, type_=sa.Text) for name, column in PAYLOADS.items()}
    return [
        *SUMMARY,
        *(sa.func.left(text, most).label(name) for name, text in pretty.items()),
        *(sa.func.length(text).label(f"{name}_length") for name, text in pretty.items()),
        WorkflowJob.webhook_secret.is_not(None).label("has_own_secret"),
        *_ONLY_OF_ONE,
    ]


async def get_job(database: Database, job_id: UUID, *, preview: int | None = None) -> JobRecord | None:
    """Everything about one job from one snapshot; None where there is no such job.

    With `preview` no more than so many characters of each payload, indented for reading, their lengths as
    `input_data_length` and `result_length`, and whether the job `has_own_secret` for its webhook.
    """
    columns = DETAIL if preview is None else _previewed(preview)
    return await once_more(lambda: _read_job(database, job_id, columns))


async def get_payload(database: Database, job_id: UUID, name: str) -> str | None:
    """One payload, `input_data` or `result`, as the JSON text it is; None where there is none."""
    query = sa.select(sa.cast(PAYLOADS[name], sa.Text)).where(WorkflowJob.id == job_id)
    async with database.statement() as connection:
        return (await connection.execute(query)).scalar_one_or_none()


async def _read_job(database: Database, job_id: UUID, columns: list[Any]) -> JobRecord | None:
    async with database.transaction() as connection:
        await connection.execute(sa.text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"))
        job = (await connection.execute(sa.select(*columns).where(WorkflowJob.id == job_id))).one_or_none()
        if job is None:
            return None
        attempts = await _rows(connection, JobAttempt, job_id, JobAttempt.claim)
        calls = await _rows(connection, LLMCall, job_id, LLMCall.id)
        deliveries = await _rows(connection, WebhookDelivery, job_id, WebhookDelivery.job_id)
        tries = await _rows(connection, WebhookAttempt, job_id, WebhookAttempt.number)
    return JobRecord(job, attempts, calls, deliveries[0] if deliveries else None, tries)


async def _rows(connection: AsyncConnection, table: Any, job_id: UUID, order: Any) -> list[sa.Row[Any]]:
    query = sa.select(*table.__table__.c).where(table.job_id == job_id).order_by(order)
    return list((await connection.execute(query)).all())
