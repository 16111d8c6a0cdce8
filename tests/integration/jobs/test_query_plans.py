"""What PostgreSQL does for each question that the page can ask, on a table of 200,000 jobs of one year."""

import itertools
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

from llm_service.db import API_LIMITS, Database
from llm_service.jobs.filters import STATUS_FILTERS, Cursor, JobFilters
from llm_service.jobs.limit_results import LimitResults
from llm_service.jobs.store import deliveries, leases, ledger, listing, upkeep
from llm_service.jobs.store.listing import COUNT_CAP, count_query, page_query
from llm_service.settings import async_database_url

JOBS = "llm_workflow_jobs"
ROWS = 200_000
STATUSES = ("all", "running", "completed", "failed", "pending", "cancelled")
LIMITS = ("25", "50", "100", "200", "Today", "7 Days", "30 Days")
EVERYTHING = ("", "Today", "7 Days", "30 Days")

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

# 90 % completed, 5 % failed, 0.2 % unfinished; one user in two thousand has 15 % of the rows.
FILL = f"""
INSERT INTO {JOBS} (id, workflow_name, user_id, username, action, status, error_code, input_data,
                    queued_at, created_at, run_after, hinted_at, webhook_url)
SELECT CAST('00000000-0000-7000-8000-' || lpad(to_hex(n), 12, '0') AS uuid),
       CASE WHEN gone THEN 'workflow_of_before'
            ELSE (ARRAY['mission_generation', 'emergency_contacts', 'driving_directions', 'completion'])[1 + floor(4 * w * w)::int] END,
       CASE WHEN who >= 0 THEN CAST('00000000-0000-4000-8000-' || lpad(to_hex(who), 12, '0') AS uuid) END,
       CASE WHEN who >= 0 THEN 'user_' || who END,
       CASE WHEN gone THEN 'action of before' WHEN a < 0.97 THEN 'action ' || floor(20 * a * a)::int END,
       CASE WHEN s < 0.9 THEN 'completed' WHEN s < 0.95 THEN 'failed' WHEN s < 0.998 THEN 'cancelled'
            WHEN s < 0.9995 THEN 'pending' ELSE 'processing' END,
       CASE WHEN s BETWEEN 0.9 AND 0.95 THEN (ARRAY['ModelTimeout', 'ModelUnavailable', 'WorkerLost'])[1 + n % 3] END,
       '{{}}', at, at, at, at, CASE WHEN n % 10 = 0 THEN 'https://example.org/' END
  FROM (SELECT n, w, a, s, at, g < 0.6 AND n < 0.3 * {ROWS} AS gone,
               CASE WHEN g < 0.6 AND n < 0.3 * {ROWS} THEN 1048575 WHEN u < 0.9 THEN floor(2000 * v ^ 4)::int ELSE -1 END AS who
          FROM (SELECT n, random() AS w, random() AS a, random() AS s, random() AS g, random() AS u, random() AS v,
                       now() - interval '365 days' * (1 - n / {ROWS}.0) AS at
                  FROM generate_series(1, {ROWS}) AS n) AS dice) AS made
"""
SIDE_ROWS = (
    f"INSERT INTO llm_job_attempts (job_id, claim, worker) SELECT id, 1, 'w' FROM {JOBS} WHERE webhook_url IS NOT NULL",
    f"INSERT INTO llm_calls (job_id, claim, step, provider, model, status, answer) "
    f"SELECT id, 1, 'ask', 'p', 'm', 'succeeded', 'a' FROM {JOBS} WHERE webhook_url IS NOT NULL",
    f"INSERT INTO llm_webhook_deliveries (job_id, webhook_id, event, state, next_attempt_at) "
    f"SELECT id, 'msg_' || id, 'workflow.completed', 'delivered', CASE WHEN random() < 0.01 THEN now() END "
    f"FROM {JOBS} WHERE webhook_url IS NOT NULL",
    "INSERT INTO llm_webhook_attempts (job_id, number) SELECT job_id, 1 FROM llm_webhook_deliveries",
)


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
    for statement in SIDE_ROWS:
        await connection.execute(statement)
    await connection.execute("VACUUM ANALYZE")
    await connection.close()


@pytest.fixture(scope="module")
def year_url(server_url: str, runner_number: int) -> Iterator[str]:
    """A database of its own with a year of jobs."""
    import asyncio

    name = f"llm_test_plans_{runner_number}"
    run_sql(server_url, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)", f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}")
    asyncio.run(fill(with_name(server_url, name)))
    yield with_name(server_url, name)
    run_sql(server_url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
async def year(year_url: str) -> AsyncIterator[Database]:
    """As the service opens it, with one connection."""
    opened = Database(async_database_url(year_url), API_LIMITS._replace(pool=1), name="plans")
    yield opened
    await opened.close()


class Explain(sa.Executable, sa.ClauseElement):
    """EXPLAIN around a statement that stays as it is: compiled by the engine, its values bound."""

    inherit_cache = False

    def __init__(self, statement: Any) -> None:
        self.statement = statement


@compiles(Explain)
def explain_sql(element: Explain, compiler: Any, **kw: Any) -> str:
    return "EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) " + str(compiler.process(element.statement, **kw))


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
    if not node["Node Type"].endswith("Scan") or node["Node Type"] == "Bitmap Index Scan" or "Relation Name" not in node:
        return 0
    one = node["Actual Rows"] + node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Index Recheck", 0)
    return int(one * node["Actual Loops"])


def choices() -> Iterator[dict[str, Any]]:
    """No value or one for each of action, user_id, username and workflow_name: frequent, rare or past ones."""
    yield {}
    for values in (BUSY, RARE, GONE):
        for picked in itertools.product((False, True), repeat=len(values)):
            if any(picked):
                yield {name: value for (name, value), take in zip(values.items(), picked, strict=True) if take}


def question(status: str, limit_results: str, choice: dict[str, Any]) -> tuple[JobFilters, int]:
    window = LimitResults.parse(limit_results, datetime.now(UTC))
    return JobFilters(status=status, window=window, **choice), window.limit(50) + 1
