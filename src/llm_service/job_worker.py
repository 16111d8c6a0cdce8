"""arq's worker with a doorbell: woken by a Redis list, and alive when Redis is not."""

import asyncio
import contextlib
import itertools
import time
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

from arq.worker import Worker

from llm_service.jobs.queue import (
    BELL,
    JOBS,
    REDIS_ERRORS,
    connect,
    pack,
    row_of,
    take,
    unpack,
)
from llm_service.logs import get_logger
from llm_service.runtime import Runtime

log = get_logger(__name__)

POLL_S = 1.0
"""The safety net below the doorbell."""
RING_WAIT_S = 5
RELEASE_S = 10.0
"""How long a run that is broken off may take to give its job back."""


class JobWorker(Worker):
    """arq's worker, woken by a Redis list; the poll stays below it as a safety net.

    Hints are taken as many at a time as there are free slots, by taking them out of the line: of two workers
    one gets each. arq asks Redis four times for every job instead. What is taken and not followed, because the
    process dies, is told again by the reconciler.

    It survives a Redis that goes away, takes nothing while the process is cut off from PostgreSQL, and leaves
    signals to whoever started it.
    """

    def __init__(
        self,
        queue_name: str,
        runtime: Runtime,
        *,
        follow: Callable[[UUID], Awaitable[None]],
        **options: Any,
    ) -> None:
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
        self._follow = follow
        self._runtime = runtime
        self._wake = asyncio.Event()
        self._numbers = itertools.count()

    async def main(self) -> None:
        bell = asyncio.create_task(self._listen())
        try:
            while True:
                await self._turn()
        finally:
            bell.cancel()

    async def _turn(self) -> None:
        self._wake.clear()  # first: a ring during the look is kept
        try:
            await self._take()
            await self.heart_beat()
        except REDIS_ERRORS as error:  # arq's own loop ends the process here
            log.debug("poll failed", error=type(error).__name__)
            await asyncio.sleep(POLL_S / 2)
        self._let_go_of_ended()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(POLL_S):
                await self._wake.wait()

    async def _take(self) -> None:
        """Start as many as there are free slots."""
        free = self.max_jobs - self.job_counter
        if free <= 0 or not self.allow_pick_jobs or not self._runtime.heartbeat.is_steady:
            return
        known = self._runtime.workflows if self.queue_name == JOBS else ()
        for raw in await take(self.pool, self.queue_name, free, known=known):
            try:
                row_id = row_of(raw.decode())
            except ValueError:
                log.warning("what was in the queue is no hint", queue=self.queue_name)
                continue
            self.job_counter += 1
            task = self.loop.create_task(self._run(row_id))
            task.add_done_callback(lambda _: self._release_sem_dec_counter_on_complete())
            self.tasks[f"{row_id}:{next(self._numbers)}"] = task

    def _let_go_of_ended(self) -> None:
        for name, task in list(self.tasks.items()):
            if task.done():
                del self.tasks[name]

    async def _run(self, row_id: UUID) -> None:
        try:
            await self._follow(row_id)
        except asyncio.CancelledError:
            log.debug("broken off", row_id=str(row_id))  # by a stop: what it did was given back
        except Exception:
            # A bug, or an error that nobody thought of. The lease runs out, and the job comes again or fails.
            log.exception("could not follow a hint", row_id=str(row_id))

    def _release_sem_dec_counter_on_complete(self) -> None:
        self.job_counter -= 1
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
