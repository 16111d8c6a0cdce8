"""What the list shows is what SQL finds: every limit with every status, on both sides of each boundary."""

import re

import asyncpg
import pytest
from tests.admin.conftest import Browser

from llm_service.admin.query import LIMITS, STATUSES, WINDOW_PAGE

# 300 jobs of ten a second back from now, and one on each side of every boundary of time.
MANY = """
INSERT INTO llm_workflow_jobs (id, workflow_name, input_data, status, created_at)
SELECT gen_random_uuid(), 'completion', '{}', (ARRAY['pending', 'processing', 'completed', 'failed', 'cancelled'])[n % 5 + 1],
       now() - n * interval '100 ms'
  FROM generate_series(1, 300) n
"""
EDGES = """
INSERT INTO llm_workflow_jobs (id, workflow_name, input_data, status, created_at)
SELECT gen_random_uuid(), 'completion', '{}', status, edge + step
  FROM unnest(ARRAY[date_trunc('day', now(), 'UTC'), now() - interval '168 hours', now() - interval '720 hours']) edge,
       unnest(ARRAY[interval '-1 microsecond', interval '0', interval '2 minutes']) step,
       unnest(ARRAY['pending', 'completed', 'failed']) status
"""
SINCE = {
    "Today": "created_at >= date_trunc('day', now(), 'UTC')",
    "7 Days": "created_at >= now() - interval '168 hours'",
    "30 Days": "created_at >= now() - interval '720 hours'",
}
STATES = {"all": "true", "running": "status IN ('pending', 'processing')"} | {
    status: f"status = '{status}'" for status in STATUSES if status not in ("all", "running")
}


@pytest.mark.parametrize("limit", list(LIMITS))
async def test_every_limit_with_every_status_shows_the_rows_that_sql_finds(
    admin: Browser, sql: asyncpg.Connection, limit: str
) -> None:
    await sql.execute(MANY)
    await sql.execute(EDGES)
    most = int(limit) if limit.isdigit() else WINDOW_PAGE
    for status, condition in STATES.items():
        found = await sql.fetch(
            f"SELECT id::text FROM llm_workflow_jobs WHERE {condition} AND {SINCE.get(limit, 'true')} "
            "ORDER BY created_at DESC, id DESC"
        )
        page = await admin.client.get("/admin/queue", params={"limit": limit, "status": status})
        assert re.findall(r'id="job-([0-9a-f-]{36})"', page.text) == [row["id"] for row in found[:most]]
        assert f"Showing <b>{min(most, len(found))}</b> of <b>{len(found)}</b>" in page.text, (limit, status)


async def test_today_begins_at_midnight_utc_to_the_microsecond(
    admin: Browser, sql: asyncpg.Connection
) -> None:
    await sql.execute(EDGES)
    await sql.execute("SET timezone = 'Asia/Tokyo'")
    midnight = await sql.fetch(
        "SELECT id::text FROM llm_workflow_jobs WHERE created_at = date_trunc('day', now(), 'UTC')"
    )
    before = await sql.fetch(
        "SELECT id::text FROM llm_workflow_jobs WHERE created_at = date_trunc('day', now(), 'UTC') - interval '1 microsecond'"
    )
    page = (await admin.client.get("/admin/queue?limit=Today")).text
    assert [row["id"] in page for row in midnight] == [True] * 3
    assert [row["id"] in page for row in before] == [False] * 3
