"""Every fault point fires in every way that makes sense there, and the promise holds after it."""

import asyncio
import contextlib
import time

import aiohttp
import pytest
from tests.chaos.conftest import Start
from tests.chaos.invariants import assert_invariants
from tests.chaos.stack import Stack, owner, until

from llm_service.failpoints import POINTS, SWITCHES, read

pytestmark = pytest.mark.timeout(240)

SENSELESS = {
    # These hold the lease and are never refused by it: a coroutine that never comes back is ended by the job's own
    # time limit or not at all, and what they wait for (PostgreSQL, Redis) has a deadline of its own.
    ("run.before-finish", "hang"),
    ("run.after-finish-before-wake", "hang"),
    ("release.before-write", "hang"),
    ("run.after-model-answer-before-ledger", "hang"),
    ("run.after-ledger-before-next-step", "hang"),
}
CASES = [
    pytest.param(point, action, marks=[pytest.mark.fast] if action == "exit" else [])
    for point in sorted(POINTS)
    for action in ("exit", "raise", "hang")
    if (point, action) not in SENSELESS
]


@pytest.mark.parametrize(("point", "action"), CASES)
async def test_the_promise_holds_after(start: Start, point: str, action: str) -> None:
    stack = await start(
        lease_s=2, failpoints=f"{point}={action}#1", settings={"LLM_SERVICE_SHUTDOWN_GRACE": "0.2"}
    )
    for number in range(4):
        await submit(
            stack, f"once-{number}", give_up_s=3 if (point, action) == ("submit.before-commit", "hang") else 5
        )
    if point.startswith(("release.", "rescue.")):
        await take_a_worker_away(stack, kill=point.startswith("rescue."))
    await stack.wait_for_fault(point)
    assert stack.fired() == [f"{point} {action}"], "once, and nothing else"
    await assert_invariants(stack)


async def submit(stack: Stack, tag: str, *, give_up_s: float) -> None:
    """As a careful client: what gets no answer in time is asked again with its key."""
    timeout = aiohttp.ClientTimeout(total=give_up_s)
    deadline = time.monotonic() + 40
    while time.monotonic() < deadline:
        with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError):
            if (await stack.submit(tag, key=tag, steps=2, webhook=True, timeout=timeout))[1] is not None:
                return
        await asyncio.sleep(0.3)
    raise AssertionError(f"{tag} was never accepted")


async def take_a_worker_away(stack: Stack, *, kill: bool) -> None:
    """While it holds a job: killed, for the reconciler to find, or told to stop, to give the job back."""
    await stack.wait_for_all()
    asked = len(stack.model.requests)
    stack.latency_s = 20
    _, job_id = await stack.submit("held", webhook=True)
    assert job_id is not None
    victim = await owner(stack, job_id)
    await stack.wait_for_model(asked + 1)
    stack.latency_s = 0.05
    victim.kill() if kill else victim.send_stop()


@pytest.mark.parametrize(
    "wrong", ["run.after-clam=exit", "run.after-claim=explode", "run.after-claim", "no-fences"]
)
def test_an_unknown_fault_is_refused(wrong: str) -> None:
    from llm_service.errors import SettingsInvalid

    with pytest.raises(SettingsInvalid, match="is no fault"):
        read({"LLM_SERVICE_FAILPOINTS": wrong})


def test_without_the_variable_a_point_is_nothing() -> None:
    assert read({}) is None
    assert read({"LLM_SERVICE_FAILPOINTS": " "}) is None
    assert SWITCHES.isdisjoint(POINTS)


async def test_a_process_does_not_start_with_an_unknown_fault(start: Start) -> None:
    stack = await start(workers=1)
    worker = stack.workers[0]
    worker.wanted = False
    worker.env |= {"LLM_SERVICE_FAILPOINTS": "run.nowhere=exit"}
    worker.kill(again=True)
    await worker.wait_until_ended()
    await until(lambda: len(worker.ends) >= 2, "it ends again")
    assert worker.ends[1] == 2
    assert "is no fault" in worker.output()
