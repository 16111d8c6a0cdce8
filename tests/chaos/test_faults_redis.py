"""The fault matrix, faults of Redis: it only wakes, so nothing may be lost with it and no submit may fail."""

import asyncio
import signal
import time

import pytest
from tests.chaos.conftest import Start
from tests.chaos.invariants import assert_invariants
from tests.chaos.load import Load
from tests.chaos.stack import Stack, nobody_ended, owner, submitted, until

pytestmark = pytest.mark.timeout(240)
fast = pytest.mark.fast


async def fill(stack: Stack, prefix: str, count: int) -> list[str]:
    """More jobs than there are slots: the first ones run, the others wait."""
    return await stack.submit_many(prefix, count)


async def test_f09_what_a_restart_of_redis_forgot_is_run_and_what_runs_is_not_run_again(start: Start) -> None:
    stack = await start(settings={"LLM_SERVICE_WORKER_CONCURRENCY": "3"})
    stack.latency_s = 3
    await fill(stack, "f09", 200)
    await stack.wait_for_model(6)
    stack.latency_s = 0.02
    await stack.restart_redis()
    await assert_invariants(stack)
    assert set(stack.asked().values()) == {1}, "nothing was asked twice"
    nobody_ended(stack)


@fast
async def test_f09_after_a_flush_all_is_run(start: Start) -> None:
    stack = await start(settings={"LLM_SERVICE_WORKER_CONCURRENCY": "2"})
    stack.latency_s = 2
    await fill(stack, "f09", 40)
    await stack.wait_for_model(4)
    stack.latency_s = 0.02
    async with stack.redis_client() as client:
        assert await client.dbsize() > 10
        await client.flushall()
    await assert_invariants(stack)
    assert set(stack.asked().values()) == {1}


async def test_f10_while_redis_is_down_submits_are_accepted_quickly_and_drain_after(start: Start) -> None:
    stack = await start()
    stack.latency_s = 8
    running = await submitted(stack, "f10-running")
    cancelled = await submitted(stack, "f10-cancelled")
    await stack.wait_for_model(2)
    stack.servers.redis.kill_group()
    stack.redis.cut()
    async with Load(stack, 10, prefix="f10") as load:
        await asyncio.sleep(2)
        status, _, _ = await stack.call("POST", f"/api/v1/jobs/{cancelled}/cancel")
        assert status == 200
        await until(lambda: stack.model.broken_off == 1, "the cancelled job's call is broken off", 2)
        assert (await stack.wait_for(running))["status"] == "completed"
        status, health, _ = await stack.call("GET", "/health/ready")
        assert (status, health["status"], health["redis"]) == (200, "degraded", "down")
        await asyncio.sleep(10)
    stack.latency_s = 0.05
    assert load.statuses.keys() == {202}, load.statuses
    assert not load.unanswered
    print(f"redis down: {load.statuses[202]} submits, p95 {load.p95_s * 1000:.0f} ms")  # noqa: T201
    assert load.p95_s < 0.3
    assert stack.apis[0].output().count("redis away") == 1, "said once, not once a request"
    await stack.heal()
    healed = time.monotonic()
    await assert_invariants(stack, drain_within_s=30)
    print(f"redis back: drained within {time.monotonic() - healed:.1f} s")  # noqa: T201
    nobody_ended(stack)


async def test_f11_while_redis_hangs_submits_are_accepted(start: Start) -> None:
    stack = await start()
    process = stack.servers.redis.process
    assert process is not None
    process.send_signal(signal.SIGSTOP)
    async with Load(stack, 10, prefix="f11") as load:
        await asyncio.sleep(12)
    process.send_signal(signal.SIGCONT)
    assert load.statuses.keys() == {202}, load.statuses
    print(f"redis hung: {load.statuses[202]} submits, longest {max(load.seconds):.2f} s")  # noqa: T201
    assert max(load.seconds) < 2.5
    assert not load.unanswered
    await assert_invariants(stack, drain_within_s=40)
    nobody_ended(stack)


async def test_f11_a_redis_that_answers_after_two_seconds_fails_no_submit(start: Start) -> None:
    stack = await start()
    stack.redis.delay(2.0)
    async with Load(stack, 10, prefix="f11") as load:
        await asyncio.sleep(5)
    assert stack.redis.hits > 0
    await stack.redis.heal()
    assert load.statuses.keys() == {202}, load.statuses
    assert max(load.seconds) < 2.5
    await assert_invariants(stack, drain_within_s=40)
    nobody_ended(stack)


@fast
async def test_f12_while_redis_is_full_submits_are_accepted_and_all_is_run_after(start: Start) -> None:
    stack = await start()
    async with stack.redis_client() as client:
        await client.config_set("maxmemory", "1")
        async with Load(stack, 10, prefix="f12") as load:
            await asyncio.sleep(5)
        assert (await client.info("errorstats")).get("errorstat_OOM"), "Redis refused nothing"
        await client.config_set("maxmemory", "0")
    assert load.statuses.keys() == {202}, load.statuses
    assert not load.unanswered
    await assert_invariants(stack, drain_within_s=40)
    nobody_ended(stack)


@fast
async def test_f10_no_slot_is_lost_when_redis_breaks_while_a_hint_is_taken(start: Start) -> None:
    stack = await start(workers=1, settings={"LLM_SERVICE_WORKER_CONCURRENCY": "2"})
    stack.redis.cut_at(b"ZREM", 6)
    await stack.submit_many("f10", 6)
    await stack.wait_for_all(60)
    assert stack.redis.hits >= 6, "the connection was not cut"
    await assert_invariants(stack)
    stack.latency_s = 1
    stack.model.most_in_flight = 0
    await stack.submit_many("f10-again", 4)
    await stack.wait_for_all(60)
    assert stack.model.most_in_flight == 2, "both slots are in use again"


@fast
async def test_f36_a_cancel_without_redis_reaches_the_model_call_within_2_s(start: Start) -> None:
    stack = await start()
    stack.latency_s = 60
    job_id = await submitted(stack, "f36", webhook=True)
    await owner(stack, job_id)
    await stack.wait_for_model(1)
    stack.redis.refuse()
    status, _, _ = await stack.call("POST", f"/api/v1/jobs/{job_id}/cancel")
    assert status == 200
    await until(lambda: stack.model.broken_off == 1, "the call is broken off", 2)
    await stack.redis.heal()
    await assert_invariants(stack)
    assert [message.json()["status"] for message in stack.receiver.received] == ["cancelled"]


async def test_f39_a_job_whose_hint_has_expired_after_days_is_run(start: Start) -> None:
    stack = await start()
    for worker in stack.workers:
        worker.kill(again=False)
        await worker.wait_until_ended()
    job_id = await submitted(stack, "f39")
    await stack.rows(
        "UPDATE llm_workflow_jobs SET created_at = created_at - interval '3 days',"
        " queued_at = queued_at - interval '3 days', run_after = run_after - interval '3 days'"
    )
    async with stack.redis_client() as client:
        assert await client.delete(f"arq:job:{job_id}:0:steps") == 1, (
            "what Redis does when the hint's time is over"
        )
    for worker in stack.workers:
        worker.start()
    assert (await stack.wait_for(job_id))["status"] == "completed"
    await assert_invariants(stack)
