"""arq's worker with a doorbell: woken by a Redis list, and alive when Redis is not."""

import asyncio
import contextlib
import time
from typing import Any

from arq.worker import Worker

from llm_service.jobs.queue import (
    BELL,
    JOBS,
    REDIS_ERRORS,
    connect,
    pack,
    running_elsewhere,
    unpack,
    workflow_of,
)
from llm_service.logs import get_logger
from llm_service.runtime import Runtime

log = get_logger(__name__)

CLAIM_S = 10
"""How long arq's own mark on a hint lasts: it covers the claim; from then on the lease does."""
POLL_S = 1.0
"""The safety net below the doorbell."""
RING_WAIT_S = 5
SPARE_HINTS = 20
"""How many hints are read beyond the free slots: some are being taken by others."""
RELEASE_S = 10.0
"""How long a run that is broken off may take to give its job back."""


class JobWorker(Worker):
    """arq's worker, woken by a Redis list; the poll stays below it as a safety net.

    It survives a Redis that goes away, takes nothing while the process is cut off from PostgreSQL, and leaves
    signals to whoever started it.
    """

    def __init__(self, queue_name: str, runtime: Runtime, **options: Any) -> None:
        super().__init__(
            queue_name=queue_name,
            redis_pool=connect(runtime.settings.redis_url),
            handle_signals=False,
            poll_delay=0.0,
            ctx={"runtime": runtime},
            job_serializer=pack,
            job_deserializer=unpack,
            keep_result=0,
            health_check_interval=15,
            log_results=False,
            **options,
        )
        self.in_progress_timeout_s = CLAIM_S
        self._runtime = runtime
        self._wake = asyncio.Event()
        self._passed_over = 0

    async def main(self) -> None:
        bell = asyncio.create_task(self._listen())
        try:
            while True:
                await self._turn()
        finally:
            bell.cancel()

    async def _turn(self) -> None:
        self._wake.clear()  # first: a ring during the poll is kept
        # No more than can be started: behind them may be a hundred thousand.
        free = max(self.max_jobs - self.job_counter, 0)
        self.queue_read_limit = self._passed_over + 2 * free + SPARE_HINTS
        try:
            await self._poll_iteration()
        except REDIS_ERRORS as error:  # arq's own loop ends the process here
            log.debug("poll failed", error=type(error).__name__)
            await asyncio.sleep(POLL_S / 2)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(POLL_S):
                await self._wake.wait()

    async def start_jobs(self, job_ids: list[bytes]) -> None:
        if not self._runtime.heartbeat.is_steady:
            return
        waiting = [hint for raw in job_ids if self._is_ours(hint := raw.decode())]
        busy = await running_elsewhere(self.pool, waiting) if waiting else set()
        self._passed_over = len(job_ids) - len(waiting) + len(busy)
        if self._passed_over == len(job_ids) == self.queue_read_limit:
            self._wake.set()  # what it can start may be behind those that it can't: read on
        try:
            for hint in waiting:
                if hint not in busy and self.allow_pick_jobs:  # a stop may come while hints are being taken
                    await super().start_jobs([hint.encode()])
        except REDIS_ERRORS:
            # arq takes a slot before it asks Redis, and where that fails it keeps the slot for ever.
            self._release_sem_dec_counter_on_complete()
            raise

    def _is_ours(self, hint: str) -> bool:
        if hint in self.tasks:
            return False
        return self.queue_name != JOBS or self._runtime.knows(workflow_of(hint))

    def _release_sem_dec_counter_on_complete(self) -> None:
        super()._release_sem_dec_counter_on_complete()
        self._wake.set()  # a slot is free: do not wait for the poll

    async def _listen(self) -> None:
        """Take a ring only while there is a free slot, so that a full worker leaves it to the others."""
        client = connect(self._runtime.settings.redis_url, socket_timeout_s=RING_WAIT_S + 3)
        try:
            while True:
                if self.job_counter >= self.max_jobs or not self.allow_pick_jobs:
                    await asyncio.sleep(0.05)
                    continue
                try:
                    rang: Any = client.brpop([BELL[self.queue_name]], timeout=RING_WAIT_S)
                    if await rang:
                        self._wake.set()
                except REDIS_ERRORS:
                    await asyncio.sleep(POLL_S / 2)
        finally:
            await client.aclose(close_connection_pool=True)

    def stop_picking(self) -> None:
        self.allow_pick_jobs = False

    async def drain(self, grace_s: float) -> None:
        """Wait for what is running, at most for the grace; then break the rest off and wait for its release."""
        ends_at = time.monotonic() + grace_s
        # Again, because a hint that was being taken when the stop came starts after the first look.
        while (running := self._running()) and (left_s := ends_at - time.monotonic()) > 0:
            await asyncio.wait(running, timeout=left_s)
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running, timeout=RELEASE_S)

    def _running(self) -> list[asyncio.Task[Any]]:
        return [task for task in self.tasks.values() if not task.done()]

    async def close(self) -> None:
        with contextlib.suppress(*REDIS_ERRORS):
            await self.pool.delete(self.health_check_key)
        await self.pool.aclose(close_connection_pool=True)
