"""The fault matrix, faults of PostgreSQL: it is the truth, so without it nothing is accepted and nothing is lost."""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import pytest
from tests.chaos.conftest import Start
from tests.chaos.invariants import assert_invariants
from tests.chaos.load import Load
from tests.chaos.stack import BIN, PROMPT, Managed, Stack, nobody_ended, owner, submitted, until

pytestmark = pytest.mark.timeout(240)
fast = pytest.mark.fast
READ = "/api/v1/jobs?limit_results=10"


async def accepts(stack: Stack) -> bool:
    status, _ = await stack.submit(f"recovered-{len(stack.acked)}-{time.monotonic()}")
    return status == 202


async def test_f13_restarts_under_load_are_503_at_worst(start: Start) -> None:
    stack = await start(lease_s=4)
    stack.latency_s = 1.0
    async with Load(stack, 10, prefix="f13", steps=2) as submits, Load(stack, 5, path=READ) as reads:
        for _ in range(5):
            await asyncio.sleep(2)
            await stack.restart_postgres(signal.SIGINT)
    print(f"restarts: submits {dict(submits.statuses)}, reads {dict(reads.statuses)}")  # noqa: T201
    assert submits.statuses.keys() <= {202, 503}
    assert reads.statuses.keys() <= {200, 503}
    assert submits.statuses[202] > 30
    await submits.settle()
    await assert_invariants(stack)
    nobody_ended(stack)


async def test_f13_a_restart_does_not_cost_live_workers_their_jobs(start: Start) -> None:
    stack = await start(lease_s=6)
    stack.latency_s = 12
    jobs = await stack.submit_many("f13", 8, webhook=True)
    await stack.wait_for_model(8)
    await stack.restart_postgres(signal.SIGINT, down_s=1)
    await asyncio.sleep(2)
    await stack.restart_postgres(signal.SIGQUIT)
    for job_id in jobs:
        job = await stack.wait_for(job_id)
        assert (job["status"], job["attempt"]) == ("completed", 1)
    await assert_invariants(stack)
    assert set(stack.asked().values()) == {1}


async def test_f14_what_was_acknowledged_survives_crashes(start: Start) -> None:
    stack = await start(lease_s=4)
    assert await stack.value("SHOW fsync") == "on"
    assert await stack.value("SHOW synchronous_commit") == "on"
    async with Load(stack, 20, prefix="f14") as load:
        for _ in range(3):
            await asyncio.sleep(2)
            await stack.restart_postgres(signal.SIGQUIT)
            await asyncio.sleep(2)
            await stack.crash_a_backend()
            await until(lambda: accepts(stack), "it recovers", 15)
    assert load.statuses.keys() <= {202, 503}, load.statuses
    await load.settle()
    await assert_invariants(stack)
    nobody_ended(stack)


async def test_f15_a_server_that_became_read_only_and_writable_again(start: Start) -> None:
    stack = await start(lease_s=4)
    await submitted(stack, "f15")
    throw_out = (
        f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{stack.database}'"
        " AND application_name LIKE 'llm-service%'"
    )
    await stack.rows(f"ALTER DATABASE {stack.database} SET default_transaction_read_only = on")
    await stack.rows(throw_out)

    async def refuses() -> bool:
        return (await stack.submit("f15-read-only"))[0] == 503

    await until(refuses, "submits are refused")
    assert (await stack.call("GET", READ))[0] in {200, 503}
    await stack.servers.execute(f"ALTER DATABASE {stack.database} RESET ALL")
    await until(lambda: accepts(stack), "writes are accepted without a restart", 10)
    await assert_invariants(stack)
    nobody_ended(stack)


@pytest.mark.parametrize("how", ["stopped", "hung"])
async def test_f16_while_postgres_is_away(start: Start, how: str) -> None:
    """503 with Retry-After in time, alive but not ready, workers idle, and back by itself."""
    stack = await start(lease_s=6)
    stack.latency_s = 20
    jobs = await stack.submit_many("f16", 4)
    await stack.wait_for_model(4)
    stack.latency_s = 0.05
    if how == "stopped":
        await stack.stop_postgres()
    else:
        for proxy in stack.pg.values():
            proxy.hang()
    await asyncio.sleep(1)
    cpu_before = [worker.cpu_seconds() for worker in stack.workers]
    away_since = time.monotonic()
    async with Load(stack, 4, prefix="f16") as submits, Load(stack, 4, path=READ) as reads:
        for _ in range(10):
            status, _, _ = await stack.call("GET", "/health/live")
            assert status == 200
            status, health, _ = await stack.call("GET", "/health/ready")
            assert (status, health["database"]) == (503, "down")
            await asyncio.sleep(1)
    spun = [worker.cpu_seconds() - before for worker, before in zip(stack.workers, cpu_before, strict=True)]
    away_s = time.monotonic() - away_since
    worst = max(*submits.seconds, *reads.seconds)
    print(f"postgres {how}: longest answer {worst:.2f} s, CPU of workers {max(spun) / away_s:.0%}")  # noqa: T201
    assert submits.statuses.keys() == {503}, submits.statuses
    assert reads.statuses.keys() == {503}, reads.statuses
    assert worst < 2.5
    assert max(spun) < 0.3 * away_s, "a worker is spinning"
    assert stack.model.broken_off == 4, "the workers gave up what they could not hold"
    await stack.heal()
    healed = time.monotonic()
    await until(lambda: accepts(stack), "it accepts again", 15)
    for job_id in jobs:
        assert (await stack.wait_for(job_id))["status"] == "completed"
    print(f"postgres back: all done after {time.monotonic() - healed:.1f} s")  # noqa: T201
    await submits.settle()
    await assert_invariants(stack)
    assert max(stack.asked().values()) == 2, "one call more for each running job, at most"
    nobody_ended(stack)


@fast
async def test_f16_a_worker_cut_off_gives_up_before_its_lease_ends(start: Start) -> None:
    stack = await start(lease_s=4)
    stack.latency_s = 60
    job_id = await submitted(stack, "f16")
    cut_off = await owner(stack, job_id)
    await stack.wait_for_model(1)
    stack.latency_s = 0.05
    stack.pg[cut_off.name].hang()
    await until(lambda: stack.model.broken_off == 1, "the call is broken off", 10)
    left_s = await stack.value(
        "SELECT extract(epoch FROM lease_expires_at - clock_timestamp()) FROM llm_workflow_jobs"
    )
    print(f"cut off: gave up {left_s:.2f} s before the lease ended")  # noqa: T201
    assert left_s > 0
    assert stack.pg[cut_off.name].hits
    job = await stack.wait_for(job_id)
    assert (job["status"], job["attempt"]) == ("completed", 2)
    await stack.heal()
    await assert_invariants(stack)
    nobody_ended(stack)


@fast
async def test_f17_too_many_clients_is_503_and_passes(start: Start) -> None:
    stack = await start()
    held: list[asyncpg.Connection] = []
    try:
        with contextlib.suppress(asyncpg.TooManyConnectionsError):
            while True:
                held.append(await asyncpg.connect(stack.servers.url))
        await held[0].execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'llm-service%'"
        )
        with contextlib.suppress(asyncpg.TooManyConnectionsError):
            while True:
                held.append(await asyncpg.connect(stack.servers.url))
        started = time.monotonic()
        found = await asyncio.gather(*(stack.call("GET", READ) for _ in range(50)))
        assert {status for status, _, _ in found} == {503}
        assert time.monotonic() - started < 2.5
        assert (await stack.submit("f17"))[0] == 503
    finally:
        for connection in held:
            await connection.close()
    await until(lambda: accepts(stack), "it recovers", 10)
    await assert_invariants(stack)
    nobody_ended(stack)


async def test_f17_f18_a_locked_table_exhausts_the_pool_and_nothing_else(start: Start) -> None:
    stack = await start()
    stack.latency_s = 6
    jobs = await stack.submit_many("f18", 4)
    await stack.wait_for_model(4)
    locker = await asyncpg.connect(stack.servers.database(stack.database))
    async with locker.transaction():
        await locker.execute("LOCK TABLE llm_workflow_jobs")
        started = time.monotonic()
        found = await asyncio.gather(*(stack.call("GET", READ) for _ in range(50)))
        took = time.monotonic() - started
        print(f"pool exhausted by a lock: 50 answers within {took:.2f} s")  # noqa: T201
        assert {status for status, _, _ in found} == {503}
        assert (await stack.call("GET", "/health/live"))[0] == 200
    await locker.close()
    assert took < 2.5
    assert (await stack.call("GET", READ))[0] == 200
    for job_id in jobs:
        job = await stack.wait_for(job_id)
        assert (job["status"], job["attempt"]) == ("completed", 1)
    await assert_invariants(stack)


@fast
async def test_f17_no_transaction_is_open_while_a_model_thinks(start: Start) -> None:
    stack = await start()
    stack.latency_s = 3
    stack.receiver.latency_s = 2
    await stack.submit_many("f17", 30, steps=2, webhook=True)
    await stack.wait_for_model(30)
    open_ones = []
    for _ in range(60):
        open_ones += await stack.rows(
            "SELECT application_name, query FROM pg_stat_activity WHERE datname = $1"
            " AND application_name LIKE 'llm-service%' AND xact_start < now() - interval '0.5 s'",
            stack.database,
        )
        await asyncio.sleep(0.1)
    assert not open_ones, open_ones[:3]
    assert stack.model.most_in_flight >= 30
    await assert_invariants(stack)


async def test_f18_half_a_second_of_latency_costs_no_lease(start: Start) -> None:
    stack = await start(lease_s=6)
    stack.latency_s = 8
    jobs = await stack.submit_many("f18", 10)
    await stack.wait_for_model(10)
    for proxy in stack.pg.values():
        proxy.delay(0.25)  # each way
    async with Load(stack, 2, prefix="f18-slow") as load:
        for job_id in jobs:
            job = await stack.wait_for(job_id)
            assert (job["status"], job["attempt"]) == ("completed", 1)
    assert all(proxy.hits for proxy in stack.pg.values())
    assert load.statuses.keys() == {202}, load.statuses
    stack.latency_s = 0.05
    await stack.heal()
    await assert_invariants(stack)


async def test_f18_two_seconds_of_latency_end_in_503_and_pass(start: Start) -> None:
    stack = await start(lease_s=6)
    for proxy in stack.pg.values():
        proxy.delay(2.0)
    async with Load(stack, 4, prefix="f18") as load:
        await asyncio.sleep(8)
    await stack.heal()
    assert load.statuses.keys() <= {202, 503}, load.statuses
    await load.settle()
    await assert_invariants(stack)
    nobody_ended(stack)


async def test_f35_after_an_outage_the_model_is_not_stormed(start: Start) -> None:
    stack = await start(settings={"LLM_SERVICE_WORKER_CONCURRENCY": "10"})
    for worker in stack.workers:
        worker.kill(again=False)
        await worker.wait_until_ended()
    for _ in range(10):
        await stack.submit_many(f"f35-{_}", 50)
    await stack.restart_redis()
    stack.latency_s = 0.2
    for worker in stack.workers:
        worker.start()
    await assert_invariants(stack)
    assert stack.model.most_in_flight <= 20, "never more calls than there are slots"
    assert set(stack.asked().values()) == {1}


async def test_f38_a_migration_there_and_back_under_traffic_is_503_at_worst(
    start: Start, tmp_path: Path
) -> None:
    stack = await start()
    environment = stack.environment("api0")

    async def run(command: str) -> None:
        managed = Managed(
            command, [str(BIN / "llm-service"), command], environment, tmp_path / f"{command}.log"
        )
        managed.start()
        try:
            await until(lambda: not managed.child.is_running, f"{command} ends", 30)
            assert managed.child.exit_code() == 0, managed.output()[-2000:]
        finally:
            managed.child.kill_group()

    async with Load(stack, 10, prefix="f38") as submits, Load(stack, 10, path=READ) as reads:
        await asyncio.sleep(1)
        await run("rollback")
        await run("migrate")
        await asyncio.sleep(1)
    assert submits.statuses.keys() <= {202, 503}, submits.statuses
    assert reads.statuses.keys() <= {200, 503}, reads.statuses
    await submits.settle()
    await assert_invariants(stack)


# --- F30: a full disk -----------------------------------------------------------------------------------------


@contextlib.contextmanager
def small_disk() -> Iterator[Path]:
    """A file system of 32 MB, outside the test's own folder, which PostgreSQL may not enter."""
    folder = Path(tempfile.mkdtemp())
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32m", "none", folder], check=False)
    try:
        if mounted.returncode:
            pytest.skip("only root may mount a small file system")
        yield folder
    finally:
        if not mounted.returncode:
            subprocess.run(["umount", folder], check=True)
        folder.rmdir()


def give_to_owner_of(example: Path, folder: Path) -> None:
    owned = example.stat()
    shutil.chown(folder, owned.st_uid, owned.st_gid)


@contextlib.asynccontextmanager
async def jobs_on(disk: Path, stack: Stack) -> AsyncIterator[None]:
    """Keep the table of jobs there meanwhile."""
    give_to_owner_of(Path(await stack.value("SHOW data_directory")), disk)
    await stack.rows(f"CREATE TABLESPACE small LOCATION '{disk}'")
    await stack.rows("ALTER TABLE llm_workflow_jobs SET TABLESPACE small")
    try:
        yield
    finally:
        await stack.rows("ALTER TABLE llm_workflow_jobs SET TABLESPACE pg_default")
        await stack.rows("DROP TABLESPACE small")


def fill(folder: Path) -> Path:
    """Take what space is left."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(64 * 1024))
    return filler


async def test_f30_a_full_disk_is_503_and_passes(start: Start) -> None:
    stack = await start(lease_s=6)
    with small_disk() as disk:
        async with jobs_on(disk, stack):
            stack.latency_s = 4
            jobs = await stack.submit_many("f30", 8, webhook=True)
            await stack.wait_for_model(8)
            filler = await asyncio.to_thread(fill, disk)
            ballast = os.urandom(60_000).hex()
            answers: Counter[int] = Counter()
            while answers[503] < 20:
                tag = f"f30-full-{answers.total()}"
                status, _ = await stack.submit(tag, input_data={"tag": f"{PROMPT} {tag}", "ballast": ballast})
                answers[status] += 1
                assert answers.total() < 400, "the disk is not full"
            assert answers.keys() <= {202, 503}, answers
            assert (await stack.call("GET", READ))[0] == 200, "what is there can be read"
            stack.latency_s = 0.05
            await asyncio.sleep(6)  # the calls end while there is no room for their results
            filler.unlink()
            healed = time.monotonic()
            await until(lambda: accepts(stack), "it accepts again", 10)
            for job_id in jobs:
                assert (await stack.wait_for(job_id))["status"] == "completed"
            after_s = time.monotonic() - healed
            print(f"disk full: {dict(answers)}; all done {after_s:.1f} s after there was room")  # noqa: T201
            await assert_invariants(stack)
            nobody_ended(stack)
