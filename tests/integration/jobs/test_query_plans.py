"""What PostgreSQL does for each question that the page can ask, on a table of 200,000 jobs of one year."""

import itertools
import json
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from typing import Any, NamedTuple
from uuid import UUID

import asyncpg
import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.ext.compiler import compiles
from tests.conftest import TEMPLATE, run_sql, with_name

from llm_service.db import API_LIMITS, Database, _written_out
from llm_service.jobs.filters import STATUS_FILTERS, Cursor, JobFilters, Moment
from llm_service.jobs.limit_results import LimitResults
from llm_service.jobs.store import deliveries, endings, intake, leases, ledger, listing, upkeep
from llm_service.jobs.store.listing import COUNT_CAP, count_query, page_query
from llm_service.settings import async_database_url

JOBS = "llm_workflow_jobs"
ROWS = 200_000
STATUSES = ("all", "running", "completed", "failed", "pending", "cancelled")
UNFINISHED = ("running", "pending")
LIMITS = ("25", "50", "100", "200", "Today", "7 Days", "30 Days")
EVERYTHING = ("", "Today", "7 Days", "30 Days")
MOMENTS: tuple[Moment, ...] = ("created_at", "completed_at")

BUSY = {
    "user_id": UUID("00000000-0000-4000-8000-000000000000"),
    "username": "user_0",
    "action": "action 0",
    "workflow_name": "mission_generation",
}
"""The values that most rows have: the busiest user has 27,000 of them."""
RARE = {
    "user_id": UUID("00000000-0000-4000-8000-000000000700"),
    "username": "user_1792",
    "action": "action 18",
    "workflow_name": "completion",
}
"""The values that few rows have: this user has about 20."""
GONE = {
    "user_id": UUID("00000000-0000-4000-8000-0000000fffff"),
    "username": "user_1048575",
    "action": "action of before",
    "workflow_name": "workflow_of_before",
}
"""Values that 18 % of the rows have, all of them older than 250 days."""

# 90 % completed, 5 % failed, 0.2 % unfinished; one user in two thousand has 15 % of the rows. Most jobs end within
# minutes, one in nine after a day and more.
FILL = f"""
INSERT INTO {JOBS} (id, workflow_name, user_id, username, action, status, error_code, input_data,
                    queued_at, created_at, run_after, hinted_at, completed_at, webhook_url)
SELECT CAST('00000000-0000-7000-8000-' || lpad(to_hex(n), 12, '0') AS uuid),
       CASE WHEN gone THEN 'workflow_of_before'
            ELSE (ARRAY['mission_generation', 'emergency_contacts', 'driving_directions', 'completion'])[1 + floor(4 * w * w)::int] END,
       CASE WHEN who >= 0 THEN CAST('00000000-0000-4000-8000-' || lpad(to_hex(who), 12, '0') AS uuid) END,
       CASE WHEN who >= 0 THEN 'user_' || who END,
       CASE WHEN gone THEN 'action of before' WHEN a < 0.97 THEN 'action ' || floor(20 * a * a)::int END,
       CASE WHEN s < 0.9 THEN 'completed' WHEN s < 0.95 THEN 'failed' WHEN s < 0.998 THEN 'cancelled'
            WHEN s < 0.9995 THEN 'pending' ELSE 'processing' END,
       CASE WHEN s BETWEEN 0.9 AND 0.95 THEN (ARRAY['ModelTimeout', 'ModelUnavailable', 'WorkerLost'])[1 + n % 3] END,
       '{{}}', at, at, at, at,
       CASE WHEN s < 0.998 THEN least(now(), at + interval '3 days' * took ^ 8) END, CASE WHEN n % 10 = 0 THEN 'https://example.org/' END
  FROM (SELECT n, w, a, s, at, took, g < 0.6 AND n < 0.3 * {ROWS} AS gone,
               CASE WHEN g < 0.6 AND n < 0.3 * {ROWS} THEN 1048575 WHEN u < 0.9 THEN floor(2000 * v ^ 4)::int ELSE -1 END AS who
          FROM (SELECT n, random() AS w, random() AS a, random() AS s, random() AS g, random() AS u, random() AS v,
                       n * 7919 % 1000 / 1000.0 AS took, now() - interval '365 days' * (1 - n / {ROWS}.0) AS at
                  FROM generate_series(1, {ROWS}) AS n) AS dice) AS made
"""
SIDE_ROWS = f"""
INSERT INTO llm_job_attempts (job_id, claim, worker) SELECT id, 1, 'w' FROM {JOBS} WHERE webhook_url IS NOT NULL;
INSERT INTO llm_calls (job_id, claim, step, provider, model, status, answer)
SELECT id, 1, 'ask', 'p', 'm', 'succeeded', 'a' FROM {JOBS} WHERE webhook_url IS NOT NULL;
INSERT INTO llm_webhook_deliveries (job_id, webhook_id, event, state, next_attempt_at)
SELECT id, 'msg_' || id, 'workflow.completed', 'delivered', CASE WHEN random() < 0.001 THEN now() END
  FROM {JOBS} WHERE webhook_url IS NOT NULL;
INSERT INTO llm_webhook_attempts (job_id, number) SELECT job_id, 1 FROM llm_webhook_deliveries;
"""


async def fill(url: str) -> None:
    """The indexes are built after the rows, from their own definitions: it takes a third of the time."""
    connection = await asyncpg.connect(url)
    indexes = await connection.fetch(
        "SELECT indexname, indexdef FROM pg_indexes WHERE tablename = $1 AND indexname LIKE 'idx_%'", JOBS
    )
    assert len(indexes) >= 8
    for index in indexes:
        await connection.execute(f"DROP INDEX {index['indexname']}")
    await connection.execute("SELECT setseed(0.5)")
    await connection.execute(FILL)
    for index in indexes:
        await connection.execute(index["indexdef"])
    await connection.execute(SIDE_ROWS)
    await connection.execute("VACUUM ANALYZE")
    await connection.close()


@pytest.fixture(scope="module")
def year_url(server_url: str, runner_number: int) -> Iterator[str]:
    """A database of its own with a year of jobs."""
    import asyncio

    name = f"llm_test_plans_{runner_number}"
    run_sql(
        server_url,
        f"DROP DATABASE IF EXISTS {name} WITH (FORCE)",
        f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}",
    )
    asyncio.run(fill(with_name(server_url, name)))
    yield with_name(server_url, name)
    run_sql(server_url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
async def year(year_url: str) -> AsyncIterator[Database]:
    """As the service opens it, with one connection, which may be held while hundreds of plans are asked for."""
    limits = API_LIMITS._replace(pool=1, whole=60, command=60, statement=60)
    opened = Database(async_database_url(year_url), limits, name="plans")
    yield opened
    await opened.close()


class Explain(sa.Executable, sa.ClauseElement):
    """EXPLAIN around a statement that stays as it is: compiled by the engine, its values bound."""

    inherit_cache = False

    def __init__(self, statement: Any) -> None:
        self.statement = statement


@compiles(Explain)
def explain_sql(element: Explain, compiler: Any, **kw: Any) -> str:
    return "EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) " + str(
        compiler.process(element.statement, **kw)
    )


class Plan(NamedTuple):
    nodes: list[dict[str, Any]]
    returned: int
    """Rows that came out."""
    read: int
    """Rows of the tables that were looked at."""
    sorted: int
    """Rows that went into a sort."""
    pages: int
    """Pages of 8 KB that were touched."""

    @property
    def shape(self) -> str:
        return " < ".join(f"{node['Node Type']} {node.get('Index Name', '')}".strip() for node in self.nodes)

    def scans_whole(self, table: str) -> bool:
        return any(n["Node Type"] == "Seq Scan" and n["Relation Name"] == table for n in self.nodes)

    def __str__(self) -> str:
        return f"{self.returned} of {self.read} rows, {self.sorted} sorted, {self.pages} pages: {self.shape}"


async def plan_of(connection: AsyncConnection, statement: Any, values: dict[str, Any] | None = None) -> Plan:
    (explained,) = (await connection.execute(Explain(statement), values or {})).scalar_one()
    nodes = list(nodes_of(explained["Plan"]))
    return Plan(
        nodes,
        returned=int(nodes[0]["Actual Rows"]),
        read=sum(rows_read(node) for node in nodes),
        sorted=max((int(n["Plans"][0]["Actual Rows"]) for n in nodes if "Sort" in n["Node Type"]), default=0),
        pages=nodes[0]["Shared Hit Blocks"] + nodes[0]["Shared Read Blocks"],
    )


def nodes_of(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for child in node.get("Plans", ()):
        yield from nodes_of(child)


def rows_read(node: dict[str, Any]) -> int:
    if (
        not node["Node Type"].endswith("Scan")
        or node["Node Type"] == "Bitmap Index Scan"
        or "Relation Name" not in node
    ):
        return 0
    one = (
        node["Actual Rows"]
        + node.get("Rows Removed by Filter", 0)
        + node.get("Rows Removed by Index Recheck", 0)
    )
    return int(one * node["Actual Loops"])


def choices() -> Iterator[dict[str, Any]]:
    """Every choice of no value or one for each of action, user_id, username and workflow_name.

    With frequent values; with rare and with past ones no more than each alone, and all together.
    """
    for picked in itertools.product((False, True), repeat=len(BUSY)):
        yield {name: value for (name, value), take in zip(BUSY.items(), picked, strict=True) if take}
    for values in (RARE, GONE):
        yield from ({name: value} for name, value in values.items())
        yield values


def question(
    status: str, limit_results: str, choice: dict[str, Any], moment: Moment
) -> tuple[JobFilters, int]:
    window = LimitResults.parse(limit_results, datetime.now(UTC))
    return JobFilters(status=status, window=window, moment=moment, **choice), window.limit(50) + 1


# --- the page ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("status", STATUSES)
async def test_no_page_reads_the_table_or_sorts_much_of_it(
    year: Database, status: str, moment: Moment
) -> None:
    """Each status x each of the seven limits x no, one or several filters, by either time."""
    bad = []
    async with year.statement() as connection:
        for choice, limit_results in itertools.product(choices(), LIMITS):
            filters, limit = question(status, limit_results, choice, moment)
            plan = await plan_of(connection, page_query(filters, limit=limit))
            most = 2 * limit if len(choice) <= 1 and status not in UNFINISHED else ROWS / 50
            if plan.scans_whole(JOBS) or max(plan.read, plan.sorted) > most:
                bad.append(f"{limit_results} {choice}: {plan}")
    assert not bad, "\n".join(bad)


@pytest.mark.parametrize("moment", MOMENTS)
async def test_a_page_without_filters_or_with_one_comes_out_of_its_index_in_order(
    year: Database, moment: Moment
) -> None:
    async with year.statement() as connection:
        expected: list[tuple[dict[str, Any], str]] = [
            ({}, "created_at"),
            ({"status": "completed"}, "status"),
            ({"status": "failed"}, "status"),
            ({"status": "running"}, "unfinished"),
            ({"error_code": "WorkerLost"}, "error_code"),
            *(({name: value}, name) for values in (BUSY, GONE) for name, value in values.items()),
            *(
                ({name: value, "status": "failed"}, name)
                for values in (BUSY, GONE)
                for name, value in values.items()
            ),
        ]
        for fields, index in expected:
            if moment == "completed_at" and index == "unfinished":
                continue
            name = index if moment == "created_at" else f"finished_{index}".removesuffix("_created_at")
            plan = await plan_of(connection, page_query(JobFilters(moment=moment, **fields), limit=51))
            assert plan.shape == f"Limit < Index Scan idx_workflow_jobs_{name}", f"{fields}: {plan}"
            assert plan.returned == 51


async def test_unfinished_jobs_by_their_end_are_not_looked_for(year: Database) -> None:
    async with year.statement() as connection:
        for status in UNFINISHED:
            filters = JobFilters(status=status, moment="completed_at")
            for query in (page_query(filters, limit=51), count_query(filters, COUNT_CAP + 1)):
                plan = await plan_of(connection, query)
                assert not [node for node in plan.nodes if "Relation Name" in node], str(plan)


@pytest.mark.parametrize("moment", MOMENTS)
async def test_a_page_deep_in_the_list_costs_what_the_first_costs(year: Database, moment: Moment) -> None:
    choices: tuple[dict[str, Any], ...] = (
        {}, {"username": "user_0"}, {"status": "failed"}, {"username": GONE["username"]}
    )  # fmt: skip
    async with year.statement() as connection:
        deep = page_query(JobFilters(moment=moment), limit=1, offset=150_000)
        row = (await connection.execute(deep)).one()
        cursor = Cursor.after(getattr(row, moment), row.id, b"")
        for choice in choices:
            filters = JobFilters(moment=moment, **choice)
            plan = await plan_of(connection, page_query(filters, limit=51, cursor=cursor))
            assert (plan.returned, plan.read, plan.sorted) == (51, 51, 0), f"{choice}: {plan}"


async def test_a_plan_is_made_for_the_values_however_often_it_is_asked(year: Database) -> None:
    """PostgreSQL plans a prepared statement for all values alike after five executions, unless told otherwise."""
    for number in range(12):
        await listing.page(year, JobFilters(username=f"user_{number}", status="completed"), limit=5)
    async with year.statement() as connection:
        prepared = await connection.execute(
            sa.text(
                "SELECT custom_plans, generic_plans FROM pg_prepared_statements WHERE statement LIKE :what"
            ),
            {"what": "%username = ANY%"},
        )
        plans = [tuple(row) for row in prepared]
    assert plans == [(12, 0)], "custom and generic plans of the page and its total"


@pytest.mark.parametrize(
    "choice", [{}, {"status": "failed"}, BUSY, {"status": "running"}, {"action": BUSY["action"]}]
)
async def test_a_page_and_its_total_in_one_statement_read_what_they_do_apart(
    year: Database, choice: dict[str, Any]
) -> None:
    """The statement that is sent, its values beside it."""
    filters = JobFilters(**choice)
    form = listing._Form(filters.shape(), has_place=False, has_offset=False, is_wide=False, counting="capped")
    text, names = _written_out(listing._query_of(form))
    values = filters.values() | {"limit": 51, "most": COUNT_CAP + 1}
    async with year.statement() as connection:
        explained = await connection.exec_driver_sql(
            f"EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) {text}",
            tuple(values[name] for name in names),
        )
        nodes = list(nodes_of(explained.scalar_one()[0]["Plan"]))
    assert not whole_tables(nodes)
    assert sum(rows_read(node) for node in nodes) <= 51 + COUNT_CAP + 1
    assert [node for node in nodes if node.get("Subplan Name", "").startswith("InitPlan")], "counted once"


# --- the total --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("status", STATUSES)
async def test_no_capped_total_reads_the_table(year: Database, status: str, moment: Moment) -> None:
    bad = []
    async with year.statement() as connection:
        for choice, limit_results in itertools.product(choices(), EVERYTHING):
            filters, _ = question(status, limit_results, choice, moment)
            plan = await plan_of(connection, count_query(filters, COUNT_CAP + 1))
            most = COUNT_CAP + 1 if len(choice) <= 1 else ROWS / 4
            if plan.scans_whole(JOBS) or plan.read > most:
                bad.append(f"{limit_results} {choice}: {plan}")
    assert not bad, "\n".join(bad)


@pytest.mark.parametrize("moment", MOMENTS)
async def test_a_total_with_one_filter_never_looks_into_the_table(year: Database, moment: Moment) -> None:
    async with year.statement() as connection:
        for status, choice in itertools.product(("all", "completed", "failed"), choices()):
            if len(choice) > 1:
                continue
            filters = JobFilters(status=status, moment=moment, **choice)
            plan = await plan_of(connection, count_query(filters, COUNT_CAP + 1))
            (scan,) = [
                node for node in plan.nodes if node["Node Type"].endswith("Scan") and "Index Name" in node
            ]
            assert scan["Node Type"] == "Index Only Scan", f"{status} {choice}: {plan}"


# --- one job, and what the workers ask --------------------------------------------------------------------


async def test_everything_about_one_job_comes_from_indexes(year: Database) -> None:
    """The statements that get_job really sends, caught on their way."""
    sent: list[str] = []

    def remember(_: object, __: object, statement: str, *___: object) -> None:
        sent.append(statement)

    async with year.statement() as connection:
        job_id = (
            await connection.execute(sa.text("SELECT job_id FROM llm_webhook_attempts LIMIT 1"))
        ).scalar_one()
    sa.event.listen(year.engine.sync_engine, "before_cursor_execute", remember)
    record = await listing.get_job(year, job_id)
    sa.event.remove(year.engine.sync_engine, "before_cursor_execute", remember)
    assert record is not None
    assert (len(record.attempts), len(record.calls), len(record.tries)) == (1, 1, 1)
    selects = [statement for statement in sent if statement.startswith("SELECT")]
    assert len(selects) == 5
    async with year.statement() as connection:
        for statement in selects:
            (explained,) = (
                await connection.exec_driver_sql(f"EXPLAIN (FORMAT JSON) {statement}", (job_id,))
            ).scalar_one()
            scans = [node["Node Type"] for node in nodes_of(explained["Plan"]) if "Relation Name" in node]
            assert scans
            assert "Seq Scan" not in scans, statement


WORKER_STATEMENTS: dict[str, tuple[Any, dict[str, Any]]] = {
    "cancel a job": (endings._CANCEL, {}),
    "release a job": (leases._RELEASE, {"token": UUID(int=1), "outcome": "released"}),
    "requeue lost jobs": (endings._REQUEUE, {"lease": 0.0, "outcome": "lost"}),
    "fail lost jobs": (endings._FAIL, {"lease": 0.0, "outcome": "lost"}),
    "find hints to repeat": (upkeep._DUE, {"unseen": 60.0}),
    "read the vitals": (upkeep._VITALS, {}),
    "count what waits": (intake._PENDING, {"most": 100_000}),
    "look for the last start": (intake._LAST_START, {}),
    "read earlier calls": (ledger._EARLIER, {}),
    "send a webhook again": (deliveries._SEND_AGAIN, {}),
    "look at what is sent again": (deliveries._STANDS, {}),
    "find due deliveries": (deliveries._DUE, {"unseen": 60.0}),
}


@pytest.mark.parametrize("what", WORKER_STATEMENTS)
async def test_no_statement_of_a_worker_reads_a_whole_table(year: Database, what: str) -> None:
    statement, values = WORKER_STATEMENTS[what]
    async with year.engine.connect() as connection:
        picked = await connection.execute(
            sa.text(f"SELECT id FROM {JOBS} WHERE webhook_url IS NULL AND status = 'pending' LIMIT 1")
        )
        if ":job_id" in str(statement):
            values = values | {"job_id": picked.scalar_one()}
        plan = await plan_of(connection, statement, values)
        await connection.rollback()
    tables = {node["Relation Name"] for node in plan.nodes if node["Node Type"] == "Seq Scan"}
    assert tables <= {"llm_workers"}, str(plan)
    assert plan.read <= 6_000, str(plan)


BATCHES: dict[str, tuple[Any, dict[str, str], dict[str, Any]]] = {
    "claim jobs": (
        leases._CLAIM,
        {"job_ids": "uuid"},
        {"worker": "w", "lease": 30.0, "known": ["completion"]},
    ),
    "move leases on": (
        leases._BEAT,
        leases._TOKENS,
        {"worker": "w", "lease": 30.0, "running": 1, "concurrency": 1},
    ),
    "look at leases": (leases._HELD, leases._TOKENS, {}),
    "finish jobs": (endings._FINISH, endings._OUTCOMES, {}),
    "begin calls": (ledger._BEGIN, ledger._NEW_CALLS, {}),
    "end calls": (ledger._END, ledger._RESULTS, {}),
    "look where deliveries go": (deliveries._RECEIVER, {"job_ids": "uuid"}, {}),
    "keep deliveries waiting": (deliveries._KEEP, {"job_ids": "uuid"}, {"seconds": 60.0}),
    "claim deliveries": (deliveries._CLAIM, {"job_ids": "uuid"}, {"lease": 30.0, "most": 1_000_000}),
    "settle tries": (deliveries._SETTLE, deliveries._SETTLEMENTS, {}),
}
SAMPLES: dict[str, Any] = {"bigint": 1, "integer": None, "varchar": "failed", "text": None, "numeric": None}


def whole_tables(nodes: list[dict[str, Any]]) -> set[str]:
    return {node["Relation Name"] for node in nodes if node["Node Type"] == "Seq Scan"} - {"llm_workers"}


@pytest.mark.parametrize("many", [1, 50])
@pytest.mark.parametrize("what", BATCHES)
async def test_no_batch_of_a_worker_reads_more_than_its_rows(year: Database, what: str, many: int) -> None:
    statement, types, values = BATCHES[what]
    async with year.engine.connect() as connection:
        newest = f"SELECT id, lease_token FROM {JOBS} ORDER BY status = 'processing' DESC, md5(id::text) LIMIT {many}"
        ids, tokens = zip(*await connection.execute(sa.text(newest)), strict=True)
        columns = {"job_ids": ids, "ids": ids, "tokens": tokens}
        for name, kind in types.items():
            values = values | {name: list(columns.get(name, [SAMPLES.get(kind)] * many))}
        plan = await plan_of(connection, statement, values)
        await connection.rollback()
    assert not whole_tables(plan.nodes), str(plan)
    assert plan.read <= 100 * many + 100, str(plan)


@pytest.mark.parametrize("what", BATCHES)
async def test_no_batch_of_a_worker_reads_a_whole_table_once_it_is_planned_for_any_values(
    year_url: str, what: str
) -> None:
    text, names = _written_out(BATCHES[what][0])
    connection = await asyncpg.connect(year_url, server_settings={"plan_cache_mode": "force_generic_plan"})
    await connection.execute(f"PREPARE batch AS {text}")
    anything = ", ".join(["NULL"] * len(names))
    (explained,) = json.loads(await connection.fetchval(f"EXPLAIN (FORMAT JSON) EXECUTE batch ({anything})"))
    await connection.close()
    assert not whole_tables(list(nodes_of(explained["Plan"]))), explained


# --- the table --------------------------------------------------------------------------------------------


async def test_the_rows_are_as_uneven_as_the_questions_need(year: Database) -> None:
    """Otherwise the plans above would prove little."""
    async with year.statement() as connection:
        for values, least, most in ((BUSY, 15_000, 90_000), (RARE, 5, 30_000), (GONE, 30_000, 40_000)):
            for name, value in values.items():
                found = await connection.execute(
                    sa.text(f"SELECT count(*) FROM {JOBS} WHERE {name} = :v"), {"v": value}
                )
                assert least <= found.scalar_one() <= most, (name, value)
        shares = await connection.execute(sa.text(f"SELECT status, count(*) FROM {JOBS} GROUP BY 1"))
        by_status = {row[0]: row[1] for row in shares}
    assert set(by_status) == set(STATUS_FILTERS) - {"all", "running"}
    assert by_status["completed"] > ROWS * 0.88
    assert 50 < by_status["pending"] + by_status["processing"] < 1_000
