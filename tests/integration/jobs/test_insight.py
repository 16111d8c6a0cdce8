"""The figures over many jobs: equal to plain SQL and to the list's total, from indexes, in UTC."""

import itertools
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest
import sqlalchemy as sa
from tests.integration.jobs.test_query_plans import (
    BUSY,
    GONE,
    JOBS,
    MOMENTS,
    RARE,
    ROWS,
    plan_of,
    year,
    year_url,
)

from llm_service.db import Database
from llm_service.jobs.filters import JobFilters, Moment
from llm_service.jobs.limit_results import LimitResults
from llm_service.jobs.model import JobStatus
from llm_service.jobs.store import insight, listing, selection
from llm_service.jobs.store.insight import NEWEST, TOP, Counted, Window, chart_window
from llm_service.jobs.store.listing import COUNT_CAP

__all__ = ["year", "year_url"]  # fixtures: a database with 200,000 jobs of a year

WINDOWS = ("Today", "7 Days", "30 Days", "25")
CHOICES: tuple[dict[str, Any], ...] = (
    {},
    {"status": "failed"},
    {"status": "running"},
    *({name: value} for name, value in BUSY.items()),
    {"username": RARE["username"], "action": RARE["action"]},
    {"error_code": "WorkerLost"},
    {"username": "nobody"},
)


@pytest.fixture
async def rows(year: Database) -> AsyncIterator[asyncpg.Connection]:
    """Plain SQL over the same rows."""
    url = year.engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    connection = await asyncpg.connect(url)
    await connection.execute("SET timezone = 'UTC'")
    yield connection
    await connection.close()


def window_of(limit: str, choice: dict[str, Any], now: datetime, moment: Moment = "created_at") -> Window:
    return chart_window(JobFilters(window=LimitResults.parse(limit, now), moment=moment, **choice), now)


def condition(window: Window, *, without: str = "") -> tuple[str, list[Any]]:
    """The window as a person would write it."""
    filters = window.filters
    parts, values = [f"{filters.moment} >= $1"], [window.since]
    for name in ("user_id", "username", "action", "workflow_name", "error_code"):
        if (value := getattr(filters, name)) is not None and name != without:
            values.append(value)
            parts.append(f"{name} = ${len(values)}")
    if without != "status" and filters.status != "all":
        parts.append(
            "status IN ('pending', 'processing')"
            if filters.status == "running"
            else f"status = '{filters.status}'"
        )
    return " AND ".join(parts), values


# --- the numbers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("limit", WINDOWS)
async def test_counts_are_the_totals_of_the_lists(year: Database, limit: str, moment: Moment) -> None:
    now = await year.clock.now()
    for choice in CHOICES:
        filters = JobFilters(window=LimitResults.parse(limit, now), moment=moment, **choice)
        counted = await insight.counts(year, filters)
        assert set(counted) == {"all", *(status.value for status in JobStatus)}
        for status, count in counted.items():
            of_status = JobFilters(
                window=filters.window,
                moment=moment,
                status=status,
                **{k: v for k, v in choice.items() if k != "status"},
            )
            page = await listing.page(year, of_status, limit=1)
            assert count == Counted(page.total or 0, page.total_is_capped), (choice, status)


async def test_counts_are_capped_and_say_so(year: Database) -> None:
    counted = await insight.counts(year, JobFilters(status="failed"))
    assert counted["all"] == counted["completed"] == Counted(COUNT_CAP, is_capped=True)
    assert not counted["failed"].is_capped
    assert 9_000 < counted["failed"].value < COUNT_CAP + 1 or counted["failed"].is_capped


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("limit", WINDOWS)
async def test_throughput_is_that_of_plain_sql_and_adds_up_to_the_total(
    year: Database, rows: asyncpg.Connection, limit: str, moment: Moment
) -> None:
    now = await year.clock.now()
    for choice in CHOICES:
        window = window_of(limit, choice, now, moment)
        buckets = await insight.throughput(year, window)
        where, values = condition(window)
        unit = window.bucket
        found = await rows.fetch(
            f"SELECT date_trunc('{unit}', {moment}) AS start, status, count(*) AS n FROM {JOBS} "
            f"WHERE {where} GROUP BY 1, 2",
            *values,
        )
        oracle = {(row["start"], row["status"]): row["n"] for row in found}
        ours = {(b.start, s): n for b in buckets for s, n in b.counts.items() if n}
        assert ours == oracle, choice
        starts = [bucket.start for bucket in buckets]
        assert starts == sorted(set(starts))
        assert {b - a for a, b in itertools.pairwise(starts)} <= {insight.STEP[unit]}
        total = (await listing.page(year, window.filters, limit=1, count="exact")).total
        assert sum(bucket.total for bucket in buckets) == total, choice


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("limit", WINDOWS)
async def test_failures_and_users_are_those_of_plain_sql(
    year: Database, rows: asyncpg.Connection, limit: str, moment: Moment
) -> None:
    now = await year.clock.now()
    for choice in CHOICES:
        window = window_of(limit, choice, now, moment)
        anything, values = condition(window, without="status")
        found = await rows.fetch(
            f"SELECT action, count(*) AS n, count(*) FILTER (WHERE status = 'failed') AS failed FROM {JOBS} "
            f"WHERE {anything} GROUP BY 1 HAVING count(*) FILTER (WHERE status = 'failed') > 0 "
            f"ORDER BY 3 DESC, 1 LIMIT {TOP}",
            *values,
        )
        assert await insight.failures_by_action(year, window) == [tuple(row) for row in found], choice
        found = await rows.fetch(
            f"SELECT error_code, count(*) FROM {JOBS} WHERE {anything} AND status = 'failed' "
            f"GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT {TOP}",
            *values,
        )
        assert await insight.failures_by_error(year, window) == [tuple(row) for row in found], choice
        exact, values = condition(window)
        found = await rows.fetch(
            f"SELECT username, count(*), sum(total_tokens), sum(cost_usd) FROM {JOBS} WHERE {exact} "
            f"GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT {TOP}",
            *values,
        )
        assert await insight.top_users(year, window) == [tuple(row) for row in found], choice


async def test_sums_of_users_skip_what_is_not_known(database: Database, sql: asyncpg.Connection) -> None:
    for number, (name, tokens, cost) in enumerate(
        [("jane", 5, "0.25"), ("jane", 7, None), ("jane", None, "0.5"), ("joe", None, None)]
    ):
        await sql.execute(
            f"INSERT INTO {JOBS} (id, workflow_name, input_data, username, total_tokens, cost_usd) "
            "VALUES ($1, 'w', '{}', $2, $3, CAST(CAST($4 AS text) AS numeric))",
            UUID(int=number),
            name,
            tokens,
            cost,
        )
    now = await database.clock.now()
    jane, joe = await insight.top_users(database, chart_window(JobFilters(), now + timedelta(minutes=1)))
    assert (jane.username, jane.jobs, jane.tokens, str(jane.cost_usd)) == ("jane", 3, 12, "0.750000000")
    assert joe == ("joe", 1, None, None), "unknown is not 0"


async def test_timings_are_the_percentiles_of_plain_sql(database: Database, sql: asyncpg.Connection) -> None:
    await sql.execute(
        f"INSERT INTO {JOBS} (id, workflow_name, input_data, status, created_at, queued_at, started_at, duration_ms) "
        "SELECT gen_random_uuid(), 'w', '{}', 'completed', at, at, at + n * interval '10 ms', n * n "
        "  FROM (SELECT n, now() - n * interval '1 s' AS at FROM generate_series(1, 200) AS n) AS made"
    )
    await sql.execute(
        f"INSERT INTO {JOBS} (id, workflow_name, input_data) VALUES (gen_random_uuid(), 'w', '{{}}')"
    )
    window = chart_window(JobFilters(), await database.clock.now())
    found = await insight.timings(database, window)
    percentiles = (
        "percentile_cont(0.5) WITHIN GROUP (ORDER BY {0}), percentile_cont(0.95) WITHIN GROUP (ORDER BY {0})"
    )
    ran = await sql.fetchrow(f"SELECT {percentiles.format('duration_ms')} FROM {JOBS}")
    assert (found.run.n, found.wait.n, found.is_capped) == (200, 200, False), (
        "a waiting job has no timings yet"
    )
    assert (found.run.p50_ms, found.run.p95_ms) == pytest.approx(tuple(ran))
    assert (found.wait.p50_ms, found.wait.p95_ms) == pytest.approx((1005.0, 1900.5))
    nothing = await insight.timings(database, chart_window(JobFilters(username="nobody"), window.until))
    assert nothing == ((0, None, None), (0, None, None), False)


async def test_suggestions_are_the_commonest_of_the_newest(year: Database, rows: asyncpg.Connection) -> None:
    for column in ("action", "username", "workflow_name", "error_code"):
        found = await rows.fetch(
            f"SELECT {column}, count(*) FROM (SELECT {column} FROM {JOBS} ORDER BY created_at DESC, id DESC "
            f"LIMIT {NEWEST}) AS newest WHERE {column} IS NOT NULL GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT 20"
        )
        oracle = [tuple(row) for row in found]
        assert await insight.suggestions(year, column, JobFilters()) == oracle
        # Its own filter does not hide the other choices.
        assert await insight.suggestions(year, column, JobFilters(**{column: "x"})) == oracle  # type: ignore[arg-type]
    named = await insight.suggestions(year, "username", JobFilters(status="failed"), "USER_1")
    assert named
    assert all(name.startswith("user_1") for name, _ in named)
    for hostile in ("%", "_", "\\", "'", "100%"):
        assert await insight.suggestions(year, "username", JobFilters(), hostile) == []


# --- windows ----------------------------------------------------------------------------------------------


async def test_days_and_hours_begin_in_utc(database: Database, sql: asyncpg.Connection) -> None:
    """Rows just before, at and just after midnight, also where the session of the database is elsewhere."""
    now = (await database.clock.now()).replace(hour=13, minute=30, second=0, microsecond=0)
    midnight = now.replace(hour=0, minute=0)
    tick = timedelta(microseconds=1)
    for number, moment in enumerate([midnight - tick, midnight, midnight + timedelta(hours=1) - tick]):
        await sql.execute(
            f"INSERT INTO {JOBS} (id, workflow_name, input_data, created_at) VALUES ($1, 'w', '{{}}', $2)",
            UUID(int=number),
            moment,
        )
    today = chart_window(JobFilters(window=LimitResults.parse("Today", now)), now)
    buckets = await insight.throughput(database, today)
    assert (today.bucket, today.since, today.is_assumed) == ("hour", midnight, False)
    assert [b.start.hour for b in buckets] == list(range(14)), "up to the hour that is not over"
    assert [b.total for b in buckets] == [2] + [0] * 13
    week = chart_window(JobFilters(window=LimitResults.parse("7 Days", now)), now)
    days = await insight.throughput(database, week)
    assert week.bucket == "day"
    assert (days[0].start, days[-1].start) == (midnight - timedelta(days=7), midnight)
    assert [b.total for b in days] == [0] * 6 + [1, 2]


def test_without_a_beginning_the_window_is_seven_days() -> None:
    now = datetime(2026, 3, 1, 12, 0, 1, tzinfo=UTC)
    window = chart_window(JobFilters(window=LimitResults.parse("25", now)), now)
    assert window.is_assumed
    assert (window.since, window.until, window.bucket) == (now - timedelta(days=7), now, "day")
    assert window.filters.after == window.since
    start, end = now - timedelta(days=20), now - timedelta(days=19)
    given = chart_window(JobFilters(after=start, before=end), now)
    assert given[1:] == (start, end, "hour", False)
    assert len(insight.bucket_starts(given)) == 25, "the first and the last hour are not whole"


# --- how it is found --------------------------------------------------------------------------------------


async def sent_by(database: Database, work: Any) -> list[str]:
    sent: list[str] = []

    def remember(_: object, __: object, statement: str, *___: object) -> None:
        sent.append(statement)

    sa.event.listen(database.engine.sync_engine, "before_cursor_execute", remember)
    await work
    sa.event.remove(database.engine.sync_engine, "before_cursor_execute", remember)
    return [statement for statement in sent if "plan_cache_mode" not in statement]


async def test_each_figure_is_one_statement_that_reads_no_payload(year: Database) -> None:
    now = await year.clock.now()
    for limit, choice in itertools.product(("Today", "30 Days"), ({}, {"username": "user_0"})):
        window = window_of(limit, choice, now)
        for work in (
            insight.counts(year, window.filters),
            insight.throughput(year, window),
            insight.failures_by_action(year, window),
            insight.failures_by_error(year, window),
            insight.top_users(year, window),
            insight.timings(year, window),
            insight.suggestions(year, "action", window.filters),
        ):
            (statement,) = await sent_by(year, work)
            assert "input_data" not in statement
            assert "result" not in statement


QUERIES: dict[str, Any] = {
    "counts": lambda window: insight.counts_query(window.filters),
    "throughput": insight.throughput_query,
    "failures by action": insight.failures_by_action_query,
    "failures by error": insight.failures_by_error_query,
    "top users": insight.top_users_query,
    "timings": lambda window: insight.timings_query(window.filters),
    "suggest actions": lambda window: insight.suggestions_query("action", window.filters, "gen"),
    "suggest users": lambda window: insight.suggestions_query("username", window.filters, ""),
    "suggest errors": lambda window: insight.suggestions_query("error_code", window.filters, ""),
    "measure a retry": lambda window: selection.measure_query(
        selection.parts(window.filters, ("completed", "failed", "cancelled"))
    ),
}
ONCE_A_STATUS = {"counts": 6}


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("what", QUERIES)
async def test_no_figure_reads_the_whole_table(year: Database, what: str, moment: Moment) -> None:
    """Each reads at most what is in its window, once for each status that it counts apart."""
    now = await year.clock.now()
    bad = []
    async with year.statement() as connection:
        for limit, choice in itertools.product(WINDOWS, CHOICES):
            if what == "measure a retry" and choice.get("status") == "running":
                continue
            window = window_of(limit, choice, now, moment)
            inside = (
                await connection.execute(
                    sa.text(f"SELECT count(*) FROM {JOBS} WHERE {moment} >= :since"),
                    {"since": window.since},
                )
            ).scalar_one()
            plan = await plan_of(connection, QUERIES[what](window))
            # A filter's own rows of the whole year may be the shorter way.
            most = ONCE_A_STATUS.get(what, 3) * inside + ROWS / 50
            if plan.scans_whole(JOBS) or plan.read > most:
                bad.append(f"{limit} {choice}: {plan}")
    assert not bad, "\n".join(bad)


async def test_suggestions_look_at_no_more_than_the_newest(year: Database) -> None:
    """Or, where it is less work, at all of a user or an action: those are sorted then."""
    async with year.statement() as connection:
        for most, choice in (
            (NEWEST, {}),
            (NEWEST, {"status": "completed"}),
            (ROWS / 5, {"username": BUSY["username"]}),
            (ROWS / 5, {"action": GONE["action"]}),
        ):
            query = insight.suggestions_query("workflow_name", JobFilters(**choice), "")
            plan = await plan_of(connection, query)
            assert not plan.scans_whole(JOBS), str(plan)
            assert plan.read <= most, str(plan)
