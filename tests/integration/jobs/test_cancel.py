"""Cancelling jobs that run, and the races between a cancel and an end."""

import asyncio
import random
from uuid import UUID

import asyncpg
import msgspec
import pytest
from tests.fakes.model_server import ModelServer, Reply
from tests.fakes.receiver import Receiver
from tests.integration.conftest import Submit, WaitFor
from tests.integration.jobs.worker_in_process import working

from llm_service.db import Database
from llm_service.errors import JobNotCancellable
from llm_service.jobs.cancel import cancel, delete
from llm_service.jobs.model import JobStatus
from llm_service.jobs.queue import JobQueue, connect
from llm_service.jobs.store import endings, leases
from llm_service.jobs.store.endings import Outcome
from llm_service.settings import Settings, load_settings

COMPLETED = Outcome(status=JobStatus.COMPLETED, result_json="{}")


@pytest.fixture
def slow_model(environment: dict[str, str], model_server: ModelServer) -> Settings:
    model_server.script = [Reply(latency_s=60)]
    return load_settings(
        environment | {"LLM_SERVICE_MODEL": "openai:test", "OPENAI_BASE_URL": model_server.url}
    )


async def wait_until_called(model_server: ModelServer) -> None:
    async with asyncio.timeout(10):
        while model_server.in_flight == 0:
            await asyncio.sleep(0.01)


async def wait_until_broken_off(model_server: ModelServer, within_s: float) -> None:
    async with asyncio.timeout(within_s):
        while model_server.broken_off == 0:
            await asyncio.sleep(0.01)


async def test_the_model_call_of_a_cancelled_job_is_broken_off(
    submit: Submit,
    wait_for: WaitFor,
    slow_model: Settings,
    model_server: ModelServer,
    database: Database,
    queue: JobQueue,
    sql: asyncpg.Connection,
) -> None:
    async with working(slow_model):
        job_id = await submit()
        await wait_until_called(model_server)
        await cancel(database, queue, job_id)
        await wait_until_broken_off(model_server, within_s=2)
        assert (await wait_for(job_id, "cancelled"))["lease_token"] is None
    calls = await sql.fetch("SELECT status FROM llm_calls")
    assert [call["status"] for call in calls] == ["lost"]
    outcomes = await sql.fetch("SELECT outcome FROM llm_job_attempts")
    assert [row["outcome"] for row in outcomes] == ["cancelled"]


async def test_without_redis_too_within_2_seconds(
    submit: Submit, slow_model: Settings, model_server: ModelServer, database: Database
) -> None:
    nowhere = JobQueue(connect("redis://127.0.0.1:1/0"), head_start_s=30)
    async with working(slow_model):
        job_id = await submit()
        await wait_until_called(model_server)
        await cancel(database, nowhere, job_id)
        await wait_until_broken_off(model_server, within_s=2)
    await nowhere.close()


async def test_a_deleted_jobs_call_is_broken_off(
    submit: Submit, slow_model: Settings, model_server: ModelServer, database: Database, queue: JobQueue
) -> None:
    async with working(slow_model):
        job_id = await submit()
        await wait_until_called(model_server)
        assert await delete(database, queue, [job_id]) == [job_id]
        await wait_until_broken_off(model_server, within_s=2)


async def test_of_cancel_and_end_exactly_one_wins_and_the_webhook_tells_the_same(
    submit: Submit,
    database: Database,
    queue: JobQueue,
    sql: asyncpg.Connection,
    receiver: Receiver,
    settings: Settings,
) -> None:
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    jobs = [await submit(webhook_url=receiver.url, wake=False) for _ in range(200)]
    wins = {"completed": 0, "cancelled": 0}

    async def race(job_id: UUID) -> None:
        [claim] = await leases.claim(database, [job_id], worker="w", lease_s=20, known=["completion"])
        assert claim is not None

        async def end() -> bool:
            await asyncio.sleep(chance.uniform(0, 0.004))
            [ending] = await endings.finish(database, [(claim, COMPLETED)])
            return ending is not None

        async def stop() -> bool:
            await asyncio.sleep(chance.uniform(0, 0.004))
            try:
                await cancel(database, queue, claim.job_id)
            except JobNotCancellable:
                return False
            return True

        has_ended, was_cancelled = await asyncio.gather(end(), stop())
        assert has_ended != was_cancelled, f"seed {seed}"
        wins["completed" if has_ended else "cancelled"] += 1

    for start in range(0, 200, 4):
        await asyncio.gather(*(race(job_id) for job_id in jobs[start : start + 4]))
    assert min(wins.values()) > 0, f"{wins}: one side always won, the race was not run (seed {seed})"
    async with working(settings):
        messages = await receiver.wait_for(200, within_s=60)
    told = {message.json()["job_id"]: message.json()["status"] for message in messages}
    stored = {
        str(row["id"]): row["status"] for row in await sql.fetch("SELECT id, status FROM llm_workflow_jobs")
    }
    assert told == stored
    assert len(messages) == 200, "one message each"


async def test_of_rescue_and_end_exactly_one_wins(
    submit: Submit, database: Database, sql: asyncpg.Connection
) -> None:
    for _ in range(30):
        job_id = await submit(wake=False, max_attempts=1)
        [claim] = await leases.claim(database, [job_id], worker="w", lease_s=20, known=["completion"])
        assert claim is not None
        await sql.execute(
            "UPDATE llm_workflow_jobs SET lease_expires_at = now() - interval '1 s' WHERE id = $1", job_id
        )
        [ended], (freed, lost) = await asyncio.gather(
            endings.finish(database, [(claim, COMPLETED)]),
            endings.reap(database, lease_s=0.001),
        )
        assert freed == []
        assert (ended is not None) != bool(lost)
        status = await sql.fetchval("SELECT status FROM llm_workflow_jobs WHERE id = $1", job_id)
        assert status == ("completed" if ended else "failed")


async def test_a_cancelled_job_is_not_started(
    submit: Submit, wait_for: WaitFor, settings: Settings, database: Database, queue: JobQueue
) -> None:
    cancelled = await submit()
    await cancel(database, queue, cancelled)
    async with working(msgspec.structs.replace(settings, worker_concurrency=1)):
        await wait_for(await submit())
        assert (await wait_for(cancelled, "cancelled"))["claims"] == 0
