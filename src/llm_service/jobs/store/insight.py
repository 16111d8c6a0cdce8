"""What many jobs say together: counts, and the figures behind the charts. No payload column is read.

Every figure is about the jobs that a list with the same filters shows. A chart needs a beginning: `chart_window`
gives one to filters that have none.
"""

from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Literal, NamedTuple

import msgspec
import sqlalchemy as sa

from llm_service.db import Database, once_more
from llm_service.jobs.filters import JobFilters
from llm_service.jobs.model import JobStatus, WorkflowJob
from llm_service.jobs.store.listing import COUNT_CAP, count_query

BucketSize = Literal["hour", "day"]
Column = Literal["action", "username", "workflow_name", "error_code"]

TOP = 10
MOST_SUGGESTED = 20
NEWEST = 10_000
"""Suggestions and timings look at so many of the newest matches."""
DEFAULT_DAYS = 7
BY_HOUR_UP_TO = timedelta(days=2)

STEP = {"hour": timedelta(hours=1), "day": timedelta(days=1)}


class Counted(NamedTuple):
    """A number of jobs; at least so many where it is capped."""

    value: int
    is_capped: bool


class Window(NamedTuple):
    """What a chart shows: the filters with a beginning. `is_assumed` where the filters had none: 7 days then."""

    filters: JobFilters
    since: datetime
    until: datetime
    bucket: BucketSize
    is_assumed: bool


class Bucket(NamedTuple):
    """The jobs whose time is within the hour or day from `start` (UTC), by status; every status is there."""

    start: datetime
    counts: dict[str, int]

    @property
    def total(self) -> int:
        return sum(self.counts.values())


class ActionFailures(NamedTuple):
    """`action` is None for jobs without one. `n` counts the jobs of every status."""

    action: str | None
    n: int
    failed: int


class ErrorCount(NamedTuple):
    error_code: str | None
    n: int


class UserUse(NamedTuple):
    """`tokens` and `cost_usd` are sums over what is known; None where nothing is."""

    username: str | None
    jobs: int
    tokens: int | None
    cost_usd: Decimal | None


class Spread(NamedTuple):
    """Half, and 95 %, of `n` jobs took no longer; None where n is 0. In milliseconds."""

    n: int
    p50_ms: float | None
    p95_ms: float | None


class Timings(NamedTuple):
    """`wait`: accepted to first claim; `run`: first claim to the end. Of the newest matches where is_capped."""

    wait: Spread
    run: Spread
    is_capped: bool


def chart_window(filters: JobFilters, now: datetime) -> Window:
    """The window that charts are about: that of the filters, else the last 7 days. Up to two days go by hour."""
    starts = [start for start in (filters.window.since, filters.after) if start is not None]
    until = min(now, filters.before or now)
    since = max(starts) if starts else until - timedelta(days=DEFAULT_DAYS)
    bucket: BucketSize = "hour" if until - since <= BY_HOUR_UP_TO else "day"
    return Window(msgspec.structs.replace(filters, after=since), since, until, bucket, not starts)


# --- counts -----------------------------------------------------------------------------------------------

COUNTED = ("all", *(status.value for status in JobStatus))


async def counts(database: Database, filters: JobFilters) -> dict[str, Counted]:
    """How many jobs match, for each status and "all": the filters' own status is not a condition here."""
    row = (await _read(database, counts_query(filters)))[0]
    return {name: Counted(min(row[i], COUNT_CAP), row[i] > COUNT_CAP) for i, name in enumerate(COUNTED)}


def counts_query(filters: JobFilters) -> sa.Executable:
    """One statement for all of them: the numbers are of one moment."""
    return sa.select(
        *(
            count_query(msgspec.structs.replace(filters, status=name), COUNT_CAP + 1).scalar_subquery()
            for name in COUNTED
        )
    )


# --- charts -----------------------------------------------------------------------------------------------


async def throughput(database: Database, window: Window) -> list[Bucket]:
    """Jobs by hour or day of their time, in UTC, oldest first; empty buckets are there."""
    rows = await _read(database, throughput_query(window))
    found: dict[datetime, dict[str, int]] = {}
    for start, status, number in rows:
        found.setdefault(start, {})[status] = number
    none = {status.value: 0 for status in JobStatus}
    return [Bucket(start, none | found.get(start, {})) for start in bucket_starts(window)]


def throughput_query(window: Window) -> sa.Executable:
    start = sa.func.date_trunc(sa.literal(window.bucket, literal_execute=True), window.filters.column)
    return (
        sa.select(start.label("start"), WorkflowJob.status, sa.func.count())
        .where(*window.filters.clauses())
        .group_by(sa.literal_column("1"), sa.literal_column("2"))
    )


def bucket_starts(window: Window) -> list[datetime]:
    step = STEP[window.bucket]
    start = window.since.replace(minute=0, second=0, microsecond=0)
    if window.bucket == "day":
        start = start.replace(hour=0)
    starts = [start]
    while starts[-1] + step < window.until:
        starts.append(starts[-1] + step)
    return starts


async def failures_by_action(database: Database, window: Window) -> list[ActionFailures]:
    """The ten actions with the most failed jobs; the filters' own status is not a condition here."""
    return [ActionFailures(*row) for row in await _read(database, failures_by_action_query(window))]


def failures_by_action_query(window: Window) -> sa.Executable:
    """Few jobs fail: from those to their actions, and only of the ten worst the number of all jobs."""
    of_all = msgspec.structs.replace(window.filters, status="all")
    failed = msgspec.structs.replace(window.filters, status="failed")
    worst = (
        sa.select(WorkflowJob.action, sa.func.count().label("failed"))
        .where(*failed.clauses())
        .group_by(WorkflowJob.action)
        .order_by(sa.desc("failed"), WorkflowJob.action)
        .limit(TOP)
        .subquery("worst")
    )

    def number(condition: sa.ColumnElement[bool]) -> sa.ScalarSelect[int]:
        matches = sa.select(sa.func.count()).select_from(WorkflowJob).where(condition, *of_all.clauses())
        return matches.correlate(worst).scalar_subquery()

    # Two questions, since no index serves one for "equal, or both unknown".
    n = sa.case(
        (worst.c.action.is_(None), number(WorkflowJob.action.is_(None))),
        else_=number(WorkflowJob.action == worst.c.action),
    )
    return sa.select(worst.c.action, n, worst.c.failed).order_by(worst.c.failed.desc(), worst.c.action)


async def failures_by_error(database: Database, window: Window) -> list[ErrorCount]:
    """The ten commonest error codes of failed jobs; the filters' own status is not a condition here."""
    return [ErrorCount(*row) for row in await _read(database, failures_by_error_query(window))]


def failures_by_error_query(window: Window) -> sa.Executable:
    failed = msgspec.structs.replace(window.filters, status="failed")
    n = sa.func.count().label("n")
    return (
        sa.select(WorkflowJob.error_code, n)
        .where(*failed.clauses())
        .group_by(WorkflowJob.error_code)
        .order_by(n.desc(), WorkflowJob.error_code)
        .limit(TOP)
    )


async def top_users(database: Database, window: Window) -> list[UserUse]:
    """The ten users with the most jobs, and what those used."""
    return [UserUse(*row) for row in await _read(database, top_users_query(window))]


def top_users_query(window: Window) -> sa.Executable:
    jobs = sa.func.count().label("jobs")
    return (
        sa.select(
            WorkflowJob.username,
            jobs,
            sa.func.sum(WorkflowJob.total_tokens),
            sa.func.sum(WorkflowJob.cost_usd),
        )
        .where(*window.filters.clauses())
        .group_by(WorkflowJob.username)
        .order_by(jobs.desc(), WorkflowJob.username)
        .limit(TOP)
    )


async def timings(database: Database, window: Window) -> Timings:
    """How long the newest matches waited and ran."""
    row = (await _read(database, timings_query(window.filters)))[0]
    return Timings(Spread(*row[:3]), Spread(*row[3:6]), row[6] > NEWEST)


def timings_query(filters: JobFilters) -> sa.Executable:
    job = WorkflowJob
    waited = sa.extract("epoch", job.started_at - sa.func.coalesce(job.queued_at, job.created_at)) * 1000
    newest = _newest(filters, waited.label("waited"), job.duration_ms.label("ran"), limit=NEWEST + 1)

    def spread(column: sa.ColumnElement[Any]) -> list[sa.ColumnElement[Any]]:
        value = sa.cast(column, sa.Double)
        return [
            sa.func.count(column),
            *(sa.func.percentile_cont(share).within_group(value) for share in (0.5, 0.95)),
        ]

    return sa.select(*spread(newest.c.waited), *spread(newest.c.ran), sa.func.count())


# --- suggestions ------------------------------------------------------------------------------------------


async def suggestions(
    database: Database, column: Column, filters: JobFilters, prefix: str = ""
) -> list[tuple[str, int]]:
    """The commonest values of a column among the newest matches, commonest first, and how often each is there.

    The column's own filter is not a condition. `prefix` is compared without regard to case.
    """
    rows = await _read(database, suggestions_query(column, filters, prefix))
    return [(value, number) for value, number in rows]


def suggestions_query(column: Column, filters: JobFilters, prefix: str) -> sa.Executable:
    others = msgspec.structs.replace(filters, **{column: None})
    newest = _newest(others, getattr(WorkflowJob, column).label("value"), limit=NEWEST)
    n = sa.func.count().label("n")
    query = sa.select(newest.c.value, n).where(newest.c.value.is_not(None))
    if prefix:
        query = query.where(sa.func.starts_with(sa.func.lower(newest.c.value), sa.func.lower(prefix)))
    return query.group_by(newest.c.value).order_by(n.desc(), newest.c.value).limit(MOST_SUGGESTED)


def _newest(filters: JobFilters, *columns: sa.ColumnElement[Any], limit: int) -> sa.Subquery:
    return (
        sa.select(*columns)
        .select_from(WorkflowJob)
        .where(*filters.clauses())
        .order_by(*filters.order())
        .limit(limit)
        .subquery("newest")
    )


async def _read(database: Database, query: sa.Executable) -> list[Any]:
    async def read() -> list[Any]:
        async with database.statement() as connection:
            return list((await connection.execute(query)).all())

    return await once_more(read)
