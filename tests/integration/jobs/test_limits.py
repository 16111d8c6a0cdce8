"""How much may be handed in: rates counted in a real Redis, the backlog in a real PostgreSQL. Ids: docs/security.md."""

import asyncio
import socket
import time
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import httpx
import msgspec
import pytest
from tests.conftest import AUTH, SECRET
from tests.in_process import serving
from tests.integration.conftest import Submit

from llm_service.db import API_LIMITS as API
from llm_service.db import Database
from llm_service.errors import TooManyRequests
from llm_service.jobs.limits import WINDOW_S, SubmitLimits
from llm_service.jobs.queue import DEADLINE_S, JobQueue, connect
from llm_service.settings import Secret, Settings

OTHER = "another-secret-9876543210"
SUBMISSION: dict[str, Any] = {"workflow_name": "completion", "input_data": {"prompt": "Say hello."}}


def limited(settings: Settings, **limits: int) -> Settings:
    return msgspec.structs.replace(settings, api_secret=(Secret(SECRET), Secret(OTHER)), **limits)


async def submit_as(client: httpx.AsyncClient, secret: str = SECRET, **fields: Any) -> httpx.Response:
    return await client.post("/api/v1/workflow", json=SUBMISSION | fields, headers={"X-API-Secret": secret})


async def test_s59_a_secret_submits_so_often_a_minute_and_no_other_is_held_up(
    settings: Settings, sql: asyncpg.Connection, queue: JobQueue
) -> None:
    async with serving(limited(settings, submit_rate=3)) as client:
        answers = [await submit_as(client) for _ in range(5)]
        assert [answer.status_code for answer in answers] == [202, 202, 202, 429, 429]
        assert answers[-1].json()["detail"]["error"] == "TooManyRequests"
        assert 1 <= int(answers[-1].headers["Retry-After"]) <= WINDOW_S
        assert (await submit_as(client, OTHER)).status_code == 202
        assert (await client.get("/api/v1/jobs", headers=AUTH)).status_code == 200, "reading has no limit"
    assert await sql.fetchval("SELECT count(*) FROM llm_workflow_jobs") == 4
    keys = [key async for key in queue.client.scan_iter("llm:rate:*")]
    assert len(keys) == 2
    for key in keys:
        assert 0 < await queue.client.ttl(key) <= WINDOW_S, "each window ends by itself"
        await queue.client.delete(key)
    async with serving(limited(settings, submit_rate=3)) as client:
        assert (await submit_as(client)).status_code == 202, "and then there is a new one"


async def test_s59_a_retry_is_a_submit_too(settings: Settings, sql: asyncpg.Connection) -> None:
    async with serving(limited(settings, submit_rate=2)) as client:
        job_id = (await submit_as(client)).json()["job_id"]
        await client.post(f"/api/v1/jobs/{job_id}/cancel", headers=AUTH)
        retries = [await client.post(f"/api/v1/jobs/{job_id}/retry", headers=AUTH) for _ in range(2)]
    assert [answer.status_code for answer in retries] == [202, 429]


async def test_s59_a_user_submits_so_often_a_minute_and_the_others_are_not_held_up(
    settings: Settings, queue: JobQueue
) -> None:
    jane, john = str(uuid4()), str(uuid4())
    async with serving(limited(settings, user_submit_rate=2)) as client:
        for user in ({"user_id": jane}, {"user_id": jane, "username": "x"}):
            assert (await submit_as(client, **user)).status_code == 202
        refused = await submit_as(client, OTHER, user_id=jane.upper())
        assert refused.status_code == 429
        for user in ({"user_id": john}, {"username": "jane"}, {"username": "jane"}, {}, {}, {}):
            assert (await submit_as(client, **user)).status_code == 202, user
        assert (await submit_as(client, username="jane")).status_code == 429
    keys = b" ".join([key async for key in queue.client.scan_iter("*rate*")])
    assert b"jane" not in keys
    assert jane.encode() not in keys


async def test_s59_of_many_at_once_no_more_than_the_limit_pass(settings: Settings) -> None:
    async with (
        serving(limited(settings, submit_rate=7)) as one,
        serving(limited(settings, submit_rate=7)) as two,
    ):
        answers = await asyncio.gather(*(submit_as(client) for client in (one, two) for _ in range(20)))
    assert sorted(answer.status_code for answer in answers) == [202] * 7 + [429] * 33


async def test_s59_without_redis_the_rates_let_pass_and_do_not_wait_each_time(settings: Settings) -> None:
    """A Redis that accepts and says nothing: its deadline is paid once, then it is left alone."""
    with socket.create_server(("127.0.0.1", 0)) as hung:
        away = limited(settings, submit_rate=1, user_submit_rate=1)
        away = msgspec.structs.replace(away, redis_url=f"redis://127.0.0.1:{hung.getsockname()[1]}/0")
        async with serving(away) as client:
            started = time.monotonic()
            answers = [await submit_as(client, username="jane") for _ in range(10)]
            took = time.monotonic() - started
    assert [answer.status_code for answer in answers] == [202] * 10
    assert took < 5 * DEADLINE_S, "each of ten submits waited for Redis"


async def test_s59_a_full_backlog_accepts_nothing_more_also_without_redis(
    settings: Settings, sql: asyncpg.Connection
) -> None:
    full = limited(settings, max_backlog=3)
    for redis_url in (settings.redis_url, "redis://127.0.0.1:1/0"):
        await sql.execute("TRUNCATE llm_workflow_jobs CASCADE")
        async with serving(msgspec.structs.replace(full, redis_url=redis_url)) as client:
            for _ in range(3):
                await submit_as(client)
        async with serving(msgspec.structs.replace(full, redis_url=redis_url)) as client:
            answer = await submit_as(client)
            assert (answer.status_code, answer.headers["Retry-After"]) == (429, "5")
            assert answer.json()["detail"]["message"].startswith("3 jobs wait already")
        await sql.execute("UPDATE llm_workflow_jobs SET status = 'completed', completed_at = now()")
        async with serving(msgspec.structs.replace(full, redis_url=redis_url)) as client:
            assert (await submit_as(client)).status_code == 202
    assert await sql.fetchval("SELECT count(*) FROM llm_workflow_jobs WHERE status = 'pending'") == 1


async def test_s59_the_backlog_is_counted_once_a_second_and_only_up_to_the_cap(
    settings: Settings, database: Database, queue: JobQueue, submit: Submit, sql: asyncpg.Connection
) -> None:
    for _ in range(4):
        await submit()
    asked: list[int] = []
    limits = SubmitLimits(database, queue, limited(settings, max_backlog=2))

    def note(*arguments: Any) -> None:
        asked.extend(arguments[3].values() if isinstance(arguments[3], dict) else arguments[3])

    import sqlalchemy as sa

    sa.event.listen(database.engine.sync_engine, "before_cursor_execute", note)
    for _ in range(50):
        with pytest.raises(TooManyRequests):
            await limits.check("c", None)
    assert asked == [2], "one statement, which counts no further than the cap"


async def test_no_limits_ask_nobody(settings: Settings) -> None:
    nowhere = Database("postgresql+asyncpg://nobody@127.0.0.1:1/none", API, name="none")
    queue = JobQueue(connect("redis://127.0.0.1:1/0"), head_start_s=0)
    limits = SubmitLimits(nowhere, queue, limited(settings, submit_rate=0, user_submit_rate=0, max_backlog=0))
    await limits.check("c", UUID(int=1))
    assert not queue.is_away
    await queue.close()
    await nowhere.close()
