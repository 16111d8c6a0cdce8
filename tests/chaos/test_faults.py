"""The fault matrix of processes and servers, one test for each row, named after its number."""

import signal
import time
from typing import Any

import pytest
from tests.chaos.conftest import Start
from tests.chaos.invariants import assert_invariants
from tests.chaos.stack import Stack, until

pytestmark = pytest.mark.timeout(240)
fast = pytest.mark.fast
HOUR = {"LLM_SERVICE_JOB_TIMEOUT": "3600", "LLM_SERVICE_CALL_TIMEOUT": "3600"}


async def owner(stack: Stack, job_id: str) -> Any:
    """The worker that runs the job."""
    name = (await stack.wait_for(job_id, "processing"))["worker"]
    return next(worker for worker in stack.workers if f":{worker.pid}:" in name)


async def test_f02_a_killed_workers_job_starts_again_within_30_s_although_its_timeout_is_an_hour(
    start: Start,
) -> None:
    stack = await start(settings=HOUR)
    stack.latency_s = 3600
    _, job_id = await stack.submit("f02", webhook=True)
    assert job_id is not None
    victim = await owner(stack, job_id)
    await stack.wait_for_model(1)
    stack.latency_s = 0.05
    victim.kill(again=False)
    killed = time.monotonic()
    await stack.wait_for_model(2, within_s=35)
    waited = time.monotonic() - killed
    print(f"from kill -9 to the next attempt: {waited:.1f} s")  # noqa: T201 - a figure to read
    assert waited < 30
    job = await stack.wait_for(job_id)
    assert (job["status"], job["attempt"]) == ("completed", 2)
    victim.start()
    await assert_invariants(stack)
    assert len({message.headers["webhook-id"] for message in stack.receiver.received}) == 1


@fast
async def test_f03_a_job_killed_after_call_three_of_five_asks_six_times_at_most(start: Start) -> None:
    stack = await start(lease_s=2)
    stack.latency_s = 0.3
    _, job_id = await stack.submit("f03", steps=5)
    assert job_id is not None
    victim = await owner(stack, job_id)
    await stack.wait_for_model(4)
    victim.kill()
    job = await stack.wait_for(job_id)
    assert (job["status"], job["attempt"]) == ("completed", 2)
    assert sum(stack.asked().values()) == 6, stack.asked()
    calls = await stack.rows("SELECT step, status FROM llm_calls ORDER BY id")
    assert [call["status"] for call in calls].count("lost") == 1
    await assert_invariants(stack)


@fast
async def test_f07_a_frozen_worker_that_wakes_changes_nothing(start: Start) -> None:
    stack = await start(lease_s=2)
    stack.latency_s = 1.5
    jobs = await stack.submit_many("f07", 6, steps=2)
    await stack.wait_for_model(6)
    frozen = stack.workers[0]
    held = await stack.value(
        "SELECT count(*) FROM llm_workflow_jobs WHERE worker LIKE '%:' || $1 || ':%'", str(frozen.pid)
    )
    frozen.send(signal.SIGSTOP)
    if held == 0:
        pytest.skip("the other worker took them all")
    for job_id in jobs:
        assert (await stack.wait_for(job_id))["status"] == "completed"
    frozen.send(signal.SIGCONT)
    await until(lambda: "job broken off" in frozen.output(), "the frozen worker finds its leases gone")
    await assert_invariants(stack)
