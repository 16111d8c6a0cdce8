"""The promise under random faults, by seed; and without its protections, where it has to break."""

import os

import pytest
from tests.chaos.conftest import Start
from tests.chaos.invariants import check
from tests.chaos.monkey import Monkey
from tests.chaos.stack import submitted, until

SECONDS = float(os.environ.get("CHAOS_SECONDS", "25"))
SEEDS = [int(seed) for seed in os.environ.get("CHAOS_SEED", "1").replace(",", " ").split()]
LEASE_S = 4.0

pytestmark = pytest.mark.timeout(SECONDS + 240)


@pytest.mark.fast
@pytest.mark.parametrize("seed", SEEDS)
async def test_nothing_is_lost_owned_twice_or_paid_twice(start: Start, seed: int) -> None:
    stack = await start(lease_s=LEASE_S)
    monkey = Monkey(stack, seed)
    report = await monkey.run(SECONDS)
    line = f"seed {seed}, {SECONDS:g} s, {monkey.done.total()} faults: {report.line()}"
    print(line)  # noqa: T201 - the figures of the run
    assert not report.violations, "\n".join([line, str(dict(monkey.done)), *report.violations[:40]])
    assert report.failed.keys() <= {"WorkerLost"}, f"jobs failed that nothing was wrong with: {line}"
    assert report.acknowledged > SECONDS * 5, "hardly any load"
    ends = {worker.name: worker.unexpected for worker in stack.workers if worker.unexpected}
    assert not ends, f"workers ended although nobody told them to: {ends}"


FREEZES = f"run.before-finish=block:{3 * LEASE_S}@0.02#4"
"""Freezes a worker where it hurts most: with the result in hand, just before it writes it."""


@pytest.mark.parametrize("seed", SEEDS[:1])
async def test_workers_that_freeze_before_they_write_change_nothing(start: Start, seed: int) -> None:
    """Random faults, and freezes beside them."""
    stack = await start(lease_s=LEASE_S, failpoints=FREEZES)
    report = await Monkey(stack, seed).run(SECONDS)
    print(f"freezing, seed {seed}: {len(stack.fired())} freezes: {report.line()}")  # noqa: T201
    assert stack.fired()
    assert not report.violations, "\n".join([report.line(), *report.violations[:40]])


async def test_without_the_reconciler_jobs_are_stuck(start: Start) -> None:
    """The negative control: a suite that can't fail proves nothing."""
    stack = await start(lease_s=LEASE_S, failpoints="no-reconciler")
    report = await Monkey(stack, SEEDS[0]).run(SECONDS, drain_within_s=40)
    print(f"no reconciler, seed {SEEDS[0]}: {report.line()}; {len(report.violations)} kinds of violation")  # noqa: T201
    assert report.stuck > 0, report.line()
    assert "I1" in {violation.split()[0] for violation in report.violations}


@pytest.mark.fast
async def test_without_the_fence_a_frozen_worker_ends_a_job_a_second_time(start: Start) -> None:
    """The negative control of one freeze; `test_f07_f40` is the same with the fence."""
    stack = await start(lease_s=2, failpoints="no-fence,run.before-finish=block:9#1")
    job_id = await submitted(stack, "control", steps=2)
    await stack.wait_for_fault("run.before-finish")
    assert (await stack.wait_for(job_id))["status"] == "completed"
    await until(
        lambda: sum(worker.output().count('"job ended"') for worker in stack.workers) == 2, "both ended it"
    )
    report = await check(stack, drain_within_s=20)
    assert report.double == 1, report.line()
    assert "I2" in {violation.split()[0] for violation in report.violations}
