"""Reads: a page of jobs, how many there are, and one job with everything about it."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Literal, NamedTuple
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from llm_service.db import Database, Row, once_more
from llm_service.jobs.binding import Bind, by_name, itself
from llm_service.jobs.crowds import Crowds
from llm_service.jobs.filters import Cursor, JobFilters
from llm_service.jobs.model import JobAttempt, LLMCall, WebhookAttempt, WebhookDelivery, WorkflowJob

JobRow = Row | sa.Row[Any]
"""One row as it was read: by column name, and by number in the order of SUMMARY."""

COUNT_CAP = 10_000
CountMode = Literal["capped", "exact", "none"]


def _columns(names: str) -> list[Any]:
    return [getattr(WorkflowJob, name) for name in names.split()]


SUMMARY = [
    *_columns(
        "id workflow_name status priority user_id username action created_at started_at completed_at "
        "duration_ms error_message error_code attempt webhook_state total_tokens"
    ),
    sa.cast(WorkflowJob.cost_usd, sa.Double).label("cost_usd"),
]
"""The columns of a list: the payloads `input_data` and `result` are not among them."""
ROW = [*SUMMARY, *_columns("max_attempts queued_at run_after lease_expires_at")]
"""What a row of the queue page is made of."""


class Page(NamedTuple):
    rows: Sequence[JobRow]
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
    crowds: Crowds | None = None,
    only_summaries: bool = False,
) -> Page:
    """One page of ROWs, or of SUMMARYs, newest first, and the total under the same conditions, as of the same moment.

    With `crowds`, a question with more than twice COUNT_CAP matches is not counted again for some seconds.
    """
    is_crowd = count == "capped" and crowds is not None and crowds.is_known(filters)
    form = _Form(
        filters.shape(),
        has_place=cursor is not None,
        has_offset=offset > 0,
        is_wide=not only_summaries,
        counting="none" if is_crowd else count,
    )
    most = (COUNT_CAP if crowds is None else 2 * COUNT_CAP) + 1
    values = filters.values() | {"limit": limit + 1, "offset": offset, "most": most}
    if cursor is not None:
        values |= cursor.values()
    rows = await once_more(lambda: database.fetch(_query_of(form), values))
    has_more = len(rows) > limit
    if count == "none":
        return Page(rows[:limit], has_more, None, total_is_capped=False)
    is_all = not has_more and not offset and cursor is None
    if is_all or not is_crowd:
        total = len(rows) if is_all else await _counted(database, form, rows, values)
        if crowds is not None and count == "capped" and total == most:
            crowds.note(filters)
        is_crowd = count == "capped" and total > COUNT_CAP
    return Page(rows[:limit], has_more, COUNT_CAP if is_crowd else total, total_is_capped=is_crowd)


class _Form(NamedTuple):
    """What the SQL of a page depends on, whatever its values."""

    shape: JobFilters
    has_place: bool
    has_offset: bool
    is_wide: bool
    counting: CountMode


async def _counted(database: Database, form: _Form, rows: Sequence[Row], values: dict[str, Any]) -> int:
    """The matches, which each row tells; behind the last one there is none that could."""
    if not rows:
        rows = await once_more(lambda: database.fetch(_count_of(form.shape, form.counting), values))
    counted: int = rows[0][-1]
    return counted


_SOME_PLACE = Cursor(0, bytes(16), b"")


# Written once for all values: to build a query anew costs more than to run it.
@lru_cache(maxsize=2048)
def _query_of(form: _Form) -> sa.Select[Any]:
    place = _SOME_PLACE if form.has_place else None
    query = page_query(form.shape, limit=1, offset=int(form.has_offset), cursor=place, bind=by_name)
    query = query if form.is_wide else query.with_only_columns(*SUMMARY)
    if form.counting == "none":
        return query
    return query.add_columns(_count_of(form.shape, form.counting).scalar_subquery().label("matches"))


@lru_cache(maxsize=1024)
def _count_of(shape: JobFilters, mode: CountMode) -> sa.Select[int]:
    return count_query(shape, 1 if mode == "capped" else None, bind=by_name)


def page_query(
    filters: JobFilters, *, limit: int, offset: int = 0, cursor: Cursor | None = None, bind: Bind = itself
) -> sa.Select[Any]:
    query = sa.select(*ROW).where(*filters.clauses(bind)).order_by(*filters.order())
    query = query.limit(bind("limit", limit, sa.Integer()))
    if cursor is not None:
        return query.where(cursor.clause(filters.column, bind))
    return query.offset(bind("offset", offset, sa.Integer())) if offset else query


def count_query(filters: JobFilters, most: int | None, bind: Bind = itself) -> sa.Select[int]:
    """Counts the matches, looking at no more than `most` of them."""
    conditions = filters.clauses(bind)
    if most is None:
        return sa.select(sa.func.count()).select_from(WorkflowJob).where(*conditions)
    matches: sa.Select[Any] = sa.select(sa.literal_column("1")).select_from(WorkflowJob).where(*conditions)
    newest = matches.order_by(*filters.order()).limit(bind("most", most, sa.Integer()))
    return sa.select(sa.func.count()).select_from(newest.subquery())


class JobRecord(NamedTuple):
    """One job as it stands, with its side rows in the order in which they happened."""

    job: sa.Row[Any]
    attempts: list[sa.Row[Any]]
    calls: list[sa.Row[Any]]
    delivery: sa.Row[Any] | None
    tries: list[sa.Row[Any]]


PAYLOADS = {"input_data": WorkflowJob.input_data, "result": WorkflowJob.result}
_ONLY_OF_ONE = [
    getattr(WorkflowJob, name) for name in ("debug_mode webhook_url retried_from request_id worker").split()
]
# The payloads leave as the text they are: parsing and printing again could change a large number.
DETAIL = [
    *ROW,
    *(sa.cast(column, sa.Text).label(name) for name, column in PAYLOADS.items()),
    *_ONLY_OF_ONE,
]


def _previewed(most: int) -> list[Any]:
    """Instead of whole payloads: their first `most` characters, indented, and how many characters each has."""
    pretty = {name: sa.func.jsonb_pretty(column, type_=sa.Text) for name, column in PAYLOADS.items()}
    return [
        *ROW,
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
