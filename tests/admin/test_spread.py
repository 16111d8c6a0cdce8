"""Many retries start one after another, few at once; what is held back waits where it can be seen."""

import asyncio
import re
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from tests.admin.conftest import PASSWORD, Browser
from tests.admin.test_actions import JOBS, add, audit, by_filter, preview
from tests.conftest import AUTH

from llm_service.admin import deeds, matching
from llm_service.admin.spread import FEW, PER_S, Starts, is_spread
from llm_service.db import Database
from llm_service.jobs.queue import JOBS as LINE
from llm_service.jobs.queue import JobQueue
from llm_service.jobs.rescue import Reconciler
from llm_service.jobs.store import intake, leases, upkeep
from llm_service.settings import Settings, load_settings

__all__ = ["add"]  # a fixture

RETRIED = f"SELECT * FROM {JOBS} WHERE retried_from IS NOT NULL ORDER BY run_after, id"
SUBMIT = {"workflow_name": "completion", "input_data": {"prompt": "Hello."}}


@pytest.fixture
def settings(environment: dict[str, str]) -> Settings:
    return load_settings(
        environment | {"LLM_SERVICE_ADMIN_PASSWORD": PASSWORD, "LLM_SERVICE_MAX_BACKLOG": "60"}
    )


async def retry_all(admin: Browser, text: str = "status=failed") -> dict[str, Any]:
    shown = await preview(admin, action="retry", filter=text)
    result: dict[str, Any] = (await by_filter(admin, "retry", text, shown)).json()
    return result


def delays_s(rows: list[asyncpg.Record]) -> list[float]:
    return [(row["run_after"] - row["created_at"]).total_seconds() for row in rows]


async def hints(queue: JobQueue) -> set[UUID]:
    return {UUID(name.decode().split(":")[0]) for name in await queue.client.zrange(LINE, 0, -1)}


# --- when they start --------------------------------------------------------------------------------------


def test_each_start_has_a_slot_of_its_own_and_a_place_in_it_by_chance() -> None:
    starts = Starts(10.0)
    delays = [starts.take() for _ in range(500)]
    assert all(
        10 + number / PER_S < delay <= 10 + (number + 1) / PER_S for number, delay in enumerate(delays)
    )
    places = {round((delay - 10) % (1 / PER_S), 4) for delay in delays}
    assert len(places) > 100, "a worker's next sweep is not what decides"


@pytest.mark.parametrize(("count", "spread"), [(1, False), (FEW, False), (FEW + 1, True), (10_000, True)])
def test_few_go_at_once(count: int, spread: bool) -> None:
    assert is_spread(count) is spread


async def test_retries_of_all_that_match_start_one_after_another(
    admin: Browser, sql: asyncpg.Connection, add: Any, queue: JobQueue
) -> None:
    count = 2 * FEW
    await add("failed", count)
    shown = await preview(admin, action="retry", filter="status=failed")
    assert shown["starts_per_s"] == PER_S
    result = (await by_filter(admin, "retry", "status=failed", shown)).json()
    assert result["done"] == count
    rows = await sql.fetch(RETRIED)
    waits = delays_s(rows)
    assert all(wait > 0 for wait in waits)
    assert count / PER_S - 3 < waits[-1] < count / PER_S + 1
    seconds = [int(wait) for wait in waits]
    assert max(seconds.count(second) for second in seconds) <= 2 * PER_S
    assert {row["status"] for row in rows} == {"pending"}
    assert all(row["queued_at"] == row["run_after"] for row in rows), "its age in the queue begins then"
    assert {row["hinted_at"] for row in rows} == {None}
    assert await hints(queue) == set(), "no worker is woken for what it may not take yet"


async def test_a_few_that_match_and_a_small_selection_start_at_once(
    admin: Browser, sql: asyncpg.Connection, add: Any, queue: JobQueue
) -> None:
    await add("failed", FEW)
    assert (await preview(admin, action="retry", filter="status=failed"))["starts_per_s"] is None
    await retry_all(admin)
    (cancelled,) = await add("cancelled")
    await admin.post("/admin/actions", {"action": "retry", "job_ids": [str(cancelled)]})
    rows = await sql.fetch(RETRIED)
    assert delays_s(rows) == [0.0] * (FEW + 1)
    assert await hints(queue) == {row["id"] for row in rows}


async def test_a_large_selection_is_spread_too(admin: Browser, sql: asyncpg.Connection, add: Any) -> None:
    ids = [str(job_id) for job_id in await add("failed", FEW + 10)]
    assert (await preview(admin, action="retry", job_ids=ids))["starts_per_s"] == PER_S
    assert (await preview(admin, action="cancel", job_ids=ids))["starts_per_s"] is None
    await admin.post("/admin/actions", {"action": "retry", "job_ids": ids})
    rows = await sql.fetch(RETRIED)
    assert delays_s(rows)[-1] > (FEW + 9) / PER_S - 1
    assert {row["priority"] for row in rows} == {7}, "chosen one by one they keep their priority"


async def test_a_deed_in_several_requests_is_one_line_of_starts(
    admin: Browser, sql: asyncpg.Connection, add: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And so is a second deed behind a first."""
    monkeypatch.setattr(matching, "BATCH", 10)
    monkeypatch.setattr(deeds, "BUDGET_S", 0.0)
    await add("failed", 30)
    shown = await preview(admin, action="retry", filter="status=failed")
    after: str | None = None
    requests = 0
    while requests == 0 or after is not None:
        after = (await by_filter(admin, "retry", "status=failed", shown, after=after)).json()["after"]
        requests += 1
    assert requests == 3
    first = await sql.fetchval(f"SELECT max(run_after) FROM {JOBS}")
    starts = [row["run_after"] for row in await sql.fetch(RETRIED)]
    assert starts[-1] - starts[0] > timedelta(seconds=29 / PER_S - 1)
    await add("cancelled", 30)
    monkeypatch.setattr(matching, "BATCH", 500)
    await retry_all(admin, "status=cancelled")
    later = [row["run_after"] for row in await sql.fetch(RETRIED)][30:]
    assert min(later) > first
    assert [row["done"] for row in await audit(sql)] == [30, 30]


# --- what the workers make of it --------------------------------------------------------------------------


async def test_a_job_that_is_held_back_is_neither_claimed_nor_told_before_its_time(
    admin: Browser,
    sql: asyncpg.Connection,
    add: Any,
    database: Database,
    queue: JobQueue,
    settings: Settings,
) -> None:
    await add("failed", FEW + 1)
    await retry_all(admin)
    await sql.execute(f"UPDATE {JOBS} SET run_after = run_after + interval '1 hour' WHERE status = 'pending'")
    row = (await sql.fetch(RETRIED))[0]

    async def claim() -> leases.Claim | None:
        [claimed] = await leases.claim(database, [row["id"]], worker="w", lease_s=20, known=["completion"])
        return claimed

    reconciler = Reconciler(database, queue, lease_s=settings.lease)
    await reconciler.sweep()
    assert await hints(queue) == set()
    assert await claim() is None
    vitals = await upkeep.vitals(database)
    assert (vitals.pending, vitals.oldest_wait_s) == (FEW + 1, None), "it is not waiting for a worker"
    await sql.execute(f"UPDATE {JOBS} SET run_after = now(), queued_at = now() WHERE id = $1", row["id"])
    await reconciler.sweep()
    assert await hints(queue) == {row["id"]}, "as soon as the reconciler comes by"
    claimed = await claim()
    assert claimed is not None
    assert claimed.waited_s < 5


async def test_what_is_held_back_counts_as_backlog(admin: Browser, sql: asyncpg.Connection, add: Any) -> None:
    await add("failed", 60)
    await retry_all(admin)
    full = await admin.client.post("/api/v1/workflow", json=SUBMIT, headers=AUTH)
    assert (full.status_code, full.json()["detail"]["error"]) == (429, "TooManyRequests")
    await sql.execute(f"UPDATE {JOBS} SET status = 'cancelled' WHERE status = 'pending'")
    async with asyncio.timeout(10):  # a count of the backlog is believed for a second
        while (await admin.client.post("/api/v1/workflow", json=SUBMIT, headers=AUTH)).status_code != 202:
            await asyncio.sleep(0.05)


async def test_what_is_held_back_can_be_cancelled(admin: Browser, sql: asyncpg.Connection, add: Any) -> None:
    await add("failed", FEW + 5)
    await retry_all(admin)
    shown = await preview(admin, action="cancel", filter="")
    assert (await by_filter(admin, "cancel", "", shown)).json()["done"] == FEW + 5
    assert await sql.fetchval(f"SELECT count(*) FROM {JOBS} WHERE status = 'pending'") == 0


async def test_the_last_start_is_that_of_a_job_that_still_waits(
    database: Database, sql: asyncpg.Connection
) -> None:
    assert await intake.last_start_s(database) == 0
    for status, seconds in (("pending", 30), ("pending", -30), ("cancelled", 900)):
        await sql.execute(
            f"INSERT INTO {JOBS} (id, workflow_name, input_data, status, run_after) "
            "VALUES (gen_random_uuid(), 'w', '{}', $1, now() + make_interval(secs => $2))",
            status,
            float(seconds),
        )
    assert 25 < await intake.last_start_s(database) <= 30


# --- how it is shown --------------------------------------------------------------------------------------


async def test_the_list_and_the_job_say_when_it_starts(
    admin: Browser, sql: asyncpg.Connection, add: Any
) -> None:
    (failed,) = await add("failed")
    result = (await admin.post("/admin/actions", {"action": "retry", "job_ids": [str(failed)]})).json()
    (job_id,) = result["job_ids"]
    start: datetime = await sql.fetchval(
        f"UPDATE {JOBS} SET run_after = now() + interval '5 minutes', queued_at = now() + interval '5 minutes' "
        "WHERE id = $1 RETURNING run_after",
        UUID(job_id),
    )
    for path in ("/admin/queue?status=pending", f"/admin/queue/{job_id}"):
        page = (await admin.client.get(path)).text
        words = re.sub(r"\s+", " ", re.sub("<[^>]+>", " ", page))
        assert f"starts at {start:%H:%M:%S}" in words, path
        assert "Pending" in words
        assert "Retrying" not in words
    row = (await admin.client.get("/admin/queue?status=pending")).text
    assert "data-since" not in row, "a wait that has not begun does not run"
    detail = (await admin.client.get(f"/admin/queue/{job_id}")).text
    assert "held back, so that many do not start together" in detail
    assert "data-since" not in detail
    await sql.execute(f"UPDATE {JOBS} SET run_after = now() - interval '1 s' WHERE id = $1", UUID(job_id))
    assert "starts at" not in (await admin.client.get("/admin/queue?status=pending")).text
