"""The promise under random faults, by seed; and without its protections, where it has to break."""

import os

import pytest
from tests.chaos.conftest import Start
from tests.chaos.monkey import Monkey

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
    """The positive half of the next test: the same faults with the fence."""
    stack = await start(lease_s=LEASE_S, failpoints=FREEZES)
    report = await Monkey(stack, seed).run(SECONDS)
    print(f"freezing, seed {seed}: {len(stack.fired())} freezes: {report.line()}")  # noqa: T201
    assert stack.fired()
    assert not report.violations, "\n".join([report.line(), *report.violations[:40]])


@pytest.mark.parametrize(
    ("without", "failpoints"), [("no-fence", f"no-fence,{FREEZES}"), ("no-reconciler", "no-reconciler")]
)
async def test_without_a_protection_the_invariants_break(start: Start, without: str, failpoints: str) -> None:
    """The negative control: a suite that can't fail proves nothing."""
    stack = await start(lease_s=LEASE_S, failpoints=failpoints)
    report = await Monkey(stack, SEEDS[0]).run(SECONDS, drain_within_s=40)
    print(f"{without}, seed {SEEDS[0]}: {report.line()}; {len(report.violations)} kinds of violation")  # noqa: T201
    broken = {violation.split()[0] for violation in report.violations}
    if without == "no-fence":
        assert report.double > 0, report.line()
        assert "I2" in broken
    else:
        assert report.stuck > 0, report.line()
        assert "I1" in broken
