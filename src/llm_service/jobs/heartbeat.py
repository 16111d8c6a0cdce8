"""Keeps the leases of this process alive, and breaks off the work of those that are gone.

The watchdog awaits nothing but the clock: a process cut off from PostgreSQL stops its own work before its
leases end, so that nobody pays for the same call beside it.
"""

import asyncio
import contextlib
import time
from typing import Protocol
from uuid import UUID

from llm_service.db import Database
from llm_service.errors import ServiceUnavailable
from llm_service.jobs.store import leases
from llm_service.jobs.store.leases import Claim
from llm_service.logs import get_logger

log = get_logger(__name__)

BEATS_IN_A_LEASE = 4
GLANCE_S = 1.0
"""How often a worker looks whether its jobs were cancelled, in case Redis did not tell."""


class Held(Protocol):
    """A run under way: its claim, and how to stop it without a trace."""

    @property
    def claim(self) -> Claim: ...

    def break_off(self, reason: str) -> None: ...


class Heartbeat:
    """One for each worker process. `lease_s` is how long a lease lasts without a beat."""

    def __init__(self, database: Database, *, worker: str, lease_s: float, concurrency: int) -> None:
        self.lease_s = lease_s
        self.beat_s = lease_s / BEATS_IN_A_LEASE
        self._database = database
        self._worker = worker
        self._concurrency = concurrency
        self._held: dict[UUID, Held] = {}
        self._last_good = time.monotonic()

    @property
    def is_steady(self) -> bool:
        """Whether beats succeed: a worker whose beats do not must not claim."""
        return self._age() < 2 * self.beat_s

    def keep(self, run: Held) -> None:
        self._held[run.claim.token] = run

    def let_go(self, run: Held) -> None:
        self._held.pop(run.claim.token, None)

    @property
    def running(self) -> list[Held]:
        return list(self._held.values())

    async def beat_forever(self) -> None:
        while True:
            started = time.monotonic()
            with contextlib.suppress(ServiceUnavailable, TimeoutError):
                async with asyncio.timeout(self.beat_s):
                    await self.beat()
            # One that failed is tried again soon: after a restart of PostgreSQL every moment of the lease counts.
            pause_s = self.beat_s if self._last_good >= started else self.beat_s / 4
            await asyncio.sleep(max(0.0, started + pause_s - time.monotonic()))

    async def beat(self) -> None:
        """Move all leases on, and break off what is no longer ours."""
        sent_at = time.monotonic()
        asked = dict(self._held)
        ours = await leases.beat(
            self._database,
            [(run.claim.job_id, token) for token, run in asked.items()],
            worker=self._worker,
            lease_s=self.lease_s,
            concurrency=self._concurrency,
        )
        self._last_good = sent_at
        self._let_go_of_all_but(ours, asked)

    async def glance_forever(self) -> None:
        while True:
            await asyncio.sleep(GLANCE_S)
            with contextlib.suppress(ServiceUnavailable, TimeoutError):
                async with asyncio.timeout(self.beat_s):
                    await self.glance()

    async def glance(self) -> None:
        """Look whether the leases in hand are still ours, between two beats and without a write."""
        if not self._held:
            return
        asked = dict(self._held)
        pairs = [(run.claim.job_id, token) for token, run in asked.items()]
        self._let_go_of_all_but(await leases.still_held(self._database, pairs), asked)

    def _let_go_of_all_but(self, ours: set[UUID], asked: dict[UUID, Held]) -> None:
        for token, run in asked.items():
            if token not in ours and token in self._held:
                run.break_off("the lease is gone")

    async def watch_forever(self) -> None:
        """Give up the work in hand one beat before its leases end."""
        while True:
            before = time.monotonic()
            await asyncio.sleep(self.beat_s / 4)
            if (lag := time.monotonic() - before - self.beat_s / 4) > self.beat_s / 4:
                log.warning("the event loop was blocked", seconds=round(lag, 2))
            if self._age() > self.lease_s - self.beat_s and self._held:
                log.error("no heartbeat for too long, giving up the work in hand", jobs=len(self._held))
                for run in self.running:
                    run.break_off("cut off from the database")

    def _age(self) -> float:
        return time.monotonic() - self._last_good
