"""The fault matrix, faults of API and worker processes: each test bears the number of its row."""

import asyncio
import signal
import subprocess
import time
from pathlib import Path

import aiohttp
import pytest
from tests.chaos.conftest import Start
from tests.chaos.invariants import assert_invariants
from tests.chaos.load import Load
from tests.chaos.stack import SOURCE, owner, submitted, until

pytestmark = pytest.mark.timeout(240)
fast = pytest.mark.fast
HOUR = {"LLM_SERVICE_JOB_TIMEOUT": "3600", "LLM_SERVICE_CALL_TIMEOUT": "3600"}


# --- F1: the API is killed ------------------------------------------------------------------------------------


async def test_f01_what_a_killed_api_acknowledged_is_there_and_a_key_resolves_the_rest(start: Start) -> None:
    stack = await start(lease_s=4)
    async with Load(stack, 40, prefix="f01") as load:
        for _ in range(5):
            accepted = load.statuses[202] + 30
            await until(lambda accepted=accepted: load.statuses[202] >= accepted, "it accepts", 30)  # type: ignore[misc]
            stack.apis[0].send(signal.SIGKILL)
    assert len(stack.apis[0].ends) >= 4
    assert load.unanswered, "no call met the kill"
    assert load.statuses[202] > 100, load.statuses
    await load.settle()
    await assert_invariants(stack)


@fast
async def test_f01_f33_killed_between_commit_and_answer_the_key_finds_the_job(start: Start) -> None:
    stack = await start(failpoints="submit.after-commit-before-enqueue=exit#1")
    with pytest.raises(aiohttp.ClientError):
        await stack.submit("once-f33", key="f33")
    assert stack.fired() == ["submit.after-commit-before-enqueue exit"]
    committed = await stack.value("SELECT CAST(id AS text) FROM llm_workflow_jobs")
    assert committed is not None, "the job was committed before the process died"
    assert await stack.submit_surely("once-f33", key="f33") == committed
    await assert_invariants(stack)


@fast
async def test_f33_of_fifty_equal_posts_to_two_processes_one_makes_a_row(start: Start) -> None:
    stack = await start(apis=2)
    found = await asyncio.gather(*(stack.submit("once-f33", key="f33", api=n % 2) for n in range(50)))
    assert {status for status, _ in found} == {202}
    assert len({job_id for _, job_id in found}) == 1
    body = {"workflow_name": "completion", "input_data": {"prompt": "other"}}
    status, _, _ = await stack.call("POST", "/api/v1/workflow", json=body, headers={"Idempotency-Key": "f33"})
    assert status == 422
    await assert_invariants(stack)
    assert sum(stack.asked().values()) == 1


# --- F2, F3, F4: a worker is killed ---------------------------------------------------------------------------


async def test_f02_a_killed_workers_job_starts_again_within_30_s_although_its_timeout_is_an_hour(
    start: Start,
) -> None:
    stack = await start(settings=HOUR)
    stack.latency_s = 3600
    job_id = await submitted(stack, "f02", webhook=True)
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
    job_id = await submitted(stack, "f03", steps=5)
    victim = await owner(stack, job_id)
    await stack.wait_for_model(4)
    victim.kill()
    job = await stack.wait_for(job_id)
    assert (job["status"], job["attempt"]) == ("completed", 2)
    assert sum(stack.asked().values()) == 6, stack.asked()
    calls = await stack.rows("SELECT step, status FROM llm_calls ORDER BY id")
    assert [call["status"] for call in calls].count("lost") == 1
    await assert_invariants(stack)


@pytest.mark.parametrize(
    ("point", "extra"),
    [("run.after-model-answer-before-ledger", 1), ("run.after-ledger-before-next-step", 0)],
)
async def test_f03_an_answer_in_the_ledger_is_not_asked_for_again(
    start: Start, point: str, extra: int
) -> None:
    stack = await start(lease_s=2, failpoints=f"{point}=exit#1")
    job = await stack.wait_for(await submitted(stack, "f03", steps=3))
    assert (job["status"], job["attempt"]) == ("completed", 2)
    assert stack.fired() == [f"{point} exit"]
    assert sum(stack.asked().values()) == 3 + extra, stack.asked()
    await assert_invariants(stack)


async def test_f04_killed_after_the_receiver_said_yes_it_tells_again_under_the_same_id(start: Start) -> None:
    stack = await start(lease_s=2, failpoints="report.after-post-before-settle=exit#1")
    await stack.wait_for(await submitted(stack, "f04", webhook=True))
    messages = await stack.receiver.wait_for(2, within_s=60)
    assert len({message.headers["webhook-id"] for message in messages}) == 1
    assert stack.fired() == ["report.after-post-before-settle exit"]
    await assert_invariants(stack)


# --- F5, F6: processes are told to stop -----------------------------------------------------------------------


async def test_f05_a_rolling_restart_under_load_costs_nobody_anything(start: Start) -> None:
    stack = await start(apis=2)
    stack.latency_s = 0.2
    stop = asyncio.Event()

    async def call_on(caller: int) -> None:
        number = 0
        while not stop.is_set():
            number += 1
            await stack.submit_surely(f"once-f05-{caller}-{number}", within_s=20, steps=2)
            await asyncio.sleep(0.3)

    callers = [asyncio.create_task(call_on(caller)) for caller in range(6)]
    for _ in range(2):
        for managed in (*stack.apis, *stack.workers):
            # Some of the jobs are longer than the grace: these are given back.
            stack.latency_s = 6
            await asyncio.sleep(0.5)
            stack.latency_s = 0.2
            managed.send(signal.SIGTERM)
            assert await managed.wait_until_ended(15) == 0, f"{managed.name}: {managed.output()[-2000:]}"
            await until(lambda managed=managed: managed.child.is_running, "it is started again")  # type: ignore[misc]
            await stack.wait_until_healthy(1)
    stop.set()
    await asyncio.gather(*callers)
    await assert_invariants(stack)
    outcomes = await stack.rows("SELECT outcome, count(*) FROM llm_job_attempts GROUP BY 1")
    found = {row[0]: row[1] for row in outcomes}
    assert found.keys() <= {"completed", "released"}, (
        f"no job failed, none waited for a lease to expire: {found}"
    )
    assert found.get("released"), "no job was given back, so nothing was shown"
    waits = await stack.value(
        "SELECT max(extract(epoch FROM next.started_at - given.ended_at)) FROM llm_job_attempts given"
        " JOIN llm_job_attempts next ON next.job_id = given.job_id AND next.claim = given.claim + 1"
        " WHERE given.outcome = 'released'"
    )
    print(  # noqa: T201
        f"rolling restart: {len(stack.acked)} accepted, {found}, longest wait after a release {waits:.2f} s"
    )
    assert waits < 5


async def test_f05_stopping_workers_with_a_long_queue_fails_no_job(start: Start) -> None:
    """A stop that comes while hints are being taken: none of them may be run by what is closing already."""
    stack = await start()
    stack.latency_s = 0.2
    for batch in range(6):
        await stack.submit_many(f"f05-{batch}", 100, steps=2)
        for worker in stack.workers:
            await worker.wait_until_ready()
            worker.send(signal.SIGTERM)
            assert await worker.wait_until_ended(20) == 0
    await stack.wait_for_all(60)
    outcomes = await stack.rows("SELECT outcome, error_code, count(*) FROM llm_job_attempts GROUP BY 1, 2")
    assert {row["outcome"] for row in outcomes} <= {"completed", "released"}, [dict(row) for row in outcomes]
    await assert_invariants(stack)


@fast
async def test_f06_a_second_sigterm_ends_the_grace_at_once(start: Start) -> None:
    stack = await start(workers=1, settings={"LLM_SERVICE_SHUTDOWN_GRACE": "60"})
    stack.latency_s = 60
    job_id = await submitted(stack, "f06")
    worker = await owner(stack, job_id)
    await stack.wait_for_model(1)
    worker.wanted = False
    worker.send(signal.SIGTERM)
    await until(lambda: "worker stopping" in worker.output(), "it stops")
    worker.send(signal.SIGTERM)
    assert await worker.wait_until_ended(3) == 0
    job = await stack.job(job_id)
    assert (job["status"], job["attempt"], job["lease_token"], job["lease_expires_at"]) == (
        "pending",
        0,
        None,
        None,
    )
    stack.latency_s = 0.05
    worker.start()
    await assert_invariants(stack)


# --- F7, F8, F40: a worker that lives on without its lease ----------------------------------------------------


@fast
async def test_f07_a_frozen_worker_that_wakes_changes_nothing(start: Start) -> None:
    stack = await start(lease_s=2)
    stack.latency_s = 1.5
    jobs = await stack.submit_many("f07", 12, steps=2)
    await stack.wait_for_model(12)
    frozen = await owner(stack, jobs[0])
    frozen.send(signal.SIGSTOP)
    for job_id in jobs:
        assert (await stack.wait_for(job_id))["status"] == "completed"
    frozen.send(signal.SIGCONT)
    await until(lambda: "job broken off" in frozen.output(), "the frozen worker finds its leases gone")
    assert frozen.starts == 1
    await assert_invariants(stack)


@fast
async def test_f07_f40_frozen_with_the_result_in_hand_its_write_is_refused(start: Start) -> None:
    stack = await start(lease_s=2, failpoints="run.before-finish=block:9#1")
    job_id = await submitted(stack, "f40", steps=2)
    await stack.wait_for_fault("run.before-finish")
    job = await stack.wait_for(job_id)
    assert (job["status"], job["attempt"]) == ("completed", 2)
    await until(
        lambda: any(
            "the lease was lost, the result is dropped" in worker.output() for worker in stack.workers
        ),
        "the frozen worker's write is refused",
    )
    await assert_invariants(stack)
    assert sum(stack.asked().values()) == 2, "what was in the ledger was not asked again"


async def test_f08_a_workflow_that_blocks_its_worker_ends_failed(start: Start) -> None:
    stack = await start(lease_s=2)
    job_id = await submitted(stack, "f08", workflow="blocking", steps=9)
    job = await stack.wait_for(job_id, within_s=90)
    assert (job["status"], job["error_code"], job["attempt"]) == ("failed", "WorkerLost", 3)
    await until(
        lambda: any("the event loop was blocked" in worker.output() for worker in stack.workers), "a warning"
    )
    await assert_invariants(stack)


# --- F29, F31, F37: clocks, poison, mixed versions ------------------------------------------------------------


SKEW = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>
static long skew(void) { const char *s = getenv("CHAOS_SKEW_S"); return s ? atol(s) : 0; }
int clock_gettime(clockid_t id, struct timespec *t) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int r = real(id, t);
    if (id == CLOCK_REALTIME) t->tv_sec += skew();
    return r;
}
int gettimeofday(struct timeval *t, void *z) {
    struct timespec s; int r = clock_gettime(CLOCK_REALTIME, &s);
    t->tv_sec = s.tv_sec; t->tv_usec = s.tv_nsec / 1000; return r;
}
time_t time(time_t *t) {
    struct timespec s; clock_gettime(CLOCK_REALTIME, &s); if (t) *t = s.tv_sec; return s.tv_sec;
}
"""


@pytest.mark.parametrize("skew_s", [3600, -3600])
async def test_f29_clocks_that_are_an_hour_off_change_nothing(
    start: Start, tmp_path: Path, skew_s: int
) -> None:
    library = tmp_path / "skew.so"
    (tmp_path / "skew.c").write_text(SKEW)
    try:
        subprocess.run(
            ["cc", "-shared", "-fPIC", "-o", library, tmp_path / "skew.c", "-ldl"],
            check=True,
            capture_output=True,
        )
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("there is no C compiler to move a process's clock with")
    stack = await start(lease_s=2)
    wrong = {"LD_PRELOAD": str(library), "CHAOS_SKEW_S": str(skew_s)}
    for managed in (stack.apis[0], stack.workers[0]):
        managed.env |= wrong
        managed.kill()
        await managed.wait_until_ended()
        await until(lambda managed=managed: managed.child.is_running, "it is started again")  # type: ignore[misc]
    await stack.wait_until_healthy(2)
    stack.latency_s = 1.0
    jobs = [await submitted(stack, f"f29-{n}", webhook=True) for n in range(8)]
    for job_id in jobs:
        job = await stack.wait_for(job_id)
        assert (job["status"], job["attempt"]) == ("completed", 1)
    status, listed, _ = await stack.call("GET", "/api/v1/jobs?limit_results=Today")
    assert status == 200
    assert len(listed["jobs"]) == 8
    await assert_invariants(stack)


async def test_f31_a_job_that_kills_its_workers_ends_failed_and_the_others_complete(start: Start) -> None:
    stack = await start(lease_s=2)
    stack.latency_s = 0.5
    poison = await submitted(stack, "f31", workflow="poison", webhook=True)
    healthy = await stack.submit_many("f31-healthy", 50, steps=2)
    job = await stack.wait_for(poison, within_s=90)
    assert (job["status"], job["error_code"], job["attempt"]) == ("failed", "WorkerLost", 3)
    await stack.wait_for_all()
    statuses = await stack.rows("SELECT status, count(*) FROM llm_workflow_jobs GROUP BY 1 ORDER BY 1")
    assert [tuple(row) for row in statuses] == [("completed", len(healthy)), ("failed", 1)]
    assert sum(len(worker.ends) for worker in stack.workers) == 3, "one worker for each attempt"
    await assert_invariants(stack)


async def test_f37_a_worker_leaves_what_it_does_not_know_to_others(start: Start) -> None:
    stack = await start(lease_s=2)
    old, new = stack.workers
    old.env |= {"PYTHONPATH": str(SOURCE)}
    old.kill()
    await old.wait_until_ended()
    new.kill(again=False)
    await new.wait_until_ended()
    await until(lambda: old.output().count("worker ready") >= 2, "the old version is up")
    jobs = await stack.submit_many("f37", 10)
    builtin = await submitted(
        stack, "f37-known", workflow="completion", input_data={"prompt": "f37-known completion"}
    )
    assert (await stack.wait_for(builtin))["status"] == "completed"
    states = await stack.rows(
        "SELECT status, claims, count(*) FROM llm_workflow_jobs WHERE workflow_name = 'steps' GROUP BY 1, 2"
    )
    assert [tuple(row) for row in states] == [("pending", 0, 10)]
    new.start()
    started = time.monotonic()
    for job_id in jobs:
        assert (await stack.wait_for(job_id))["status"] == "completed"
    print(f"unknown to one of two workers: completed {time.monotonic() - started:.1f} s after the other came")  # noqa: T201
    await assert_invariants(stack)
