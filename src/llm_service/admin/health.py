"""Whether jobs are being worked on, in a line for the foot of the page and a banner when they are not."""

import asyncio
import math
import time
from collections.abc import Callable

import msgspec

from llm_service.admin.view import span
from llm_service.api.services import Services
from llm_service.errors import ServiceUnavailable
from llm_service.jobs.store import upkeep

STEP_S = 5.0
KEPT_S = 2.0


class Health(msgspec.Struct, frozen=True, kw_only=True):
    line: str
    banner: str | None
    """What keeps jobs from being worked on."""


class HealthLook:
    """One look in 2 s for all pages of a process: it counts what waits, no small thing with a large backlog."""

    def __init__(self, services: Services, now: Callable[[], float] = time.monotonic) -> None:
        self._services = services
        self._now = now
        self._turn = asyncio.Lock()
        self._seen: Health | None = None
        self._seen_at = -math.inf

    async def look(self) -> Health:
        """Never fails: not knowing is an answer too."""
        async with self._turn:
            if self._seen is None or self._now() - self._seen_at >= KEPT_S:
                self._seen = await look_at(self._services)
                self._seen_at = self._now()
            return self._seen


async def look_at(services: Services) -> Health:
    redis_is_up, vitals = await asyncio.gather(services.queue.ping(), _vitals(services))
    if vitals is None:
        return Health(line="The state of the workers is not known at this moment.", banner=None)
    workers = f"{vitals.workers} worker{'' if vitals.workers == 1 else 's'} up"
    # In steps, so that a queue that waits is not a new page every second.
    waited_s = None if vitals.oldest_wait_s is None else vitals.oldest_wait_s // STEP_S * STEP_S
    wait = "nothing waits" if waited_s is None else f"oldest wait {_wait(waited_s)}"
    return Health(
        line=f"{workers} · {vitals.processing} running · {vitals.pending} pending · {wait}",
        banner=_banner(vitals.workers, waited_s, redis_is_up=redis_is_up),
    )


async def _vitals(services: Services) -> upkeep.Vitals | None:
    try:
        return await upkeep.vitals(services.health_database)
    except ServiceUnavailable:
        return None


def _wait(seconds: float) -> str:
    return "under 5 s" if seconds < STEP_S else span(seconds * 1000)


def _banner(workers: int, waited_s: float | None, *, redis_is_up: bool) -> str | None:
    if workers == 0:
        waiting = "" if waited_s is None else f" The oldest has waited for {_wait(waited_s)}."
        return f"Jobs are accepted but not being processed: no worker is up.{waiting}"
    if not redis_is_up:
        return "Redis is away: jobs are accepted and found by the workers' own look-up, a few seconds later than usual."
    return None
