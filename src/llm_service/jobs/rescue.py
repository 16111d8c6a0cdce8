"""The reconciler: takes jobs back from lost workers, and tells Redis again what it may have forgotten.

It runs in every worker, one at a time by an advisory lock; all it does is safe to repeat.
"""

import asyncio
import random
import time

from llm_service import failpoints
from llm_service.db import Database
from llm_service.errors import ServiceUnavailable
from llm_service.jobs.queue import JobQueue
from llm_service.jobs.report import announce
from llm_service.jobs.store import deliveries, endings, upkeep
from llm_service.logs import get_logger
from llm_service.metrics import RESCUED

log = get_logger(__name__)

EVERY_S = 3.0
UNSEEN_S = 10.0
"""A pending row whose hint is older than this is told again: Redis may have lost it."""
FORGET_EVERY_S = 600.0


class Reconciler:
    def __init__(self, database: Database, queue: JobQueue, *, lease_s: float) -> None:
        self._database = database
        self._queue = queue
        self._lease_s = lease_s
        self._forgot_at = time.monotonic()

    async def sweep_forever(self) -> None:
        while not failpoints.is_off("reconciler"):
            try:
                await self.sweep()
            except ServiceUnavailable:
                log.warning("could not reconcile, the database is away")
            await asyncio.sleep(EVERY_S * random.uniform(0.8, 1.2))  # noqa: S311 - jitter

    async def sweep(self) -> None:
        """One round, unless another worker is at it."""
        async with upkeep.only_reconciler(self._database) as is_ours:
            if not is_ours:
                return
            await self._take_back_lost_jobs()
            await self._tell_again()
            if time.monotonic() - self._forgot_at > FORGET_EVERY_S:
                await upkeep.forget(self._database)
                self._forgot_at = time.monotonic()

    async def _take_back_lost_jobs(self) -> None:
        freed, ended = await endings.reap(self._database, lease_s=self._lease_s)
        for hint in freed:
            log.warning("worker lost, job goes back to the queue", job_id=str(hint.job_id))
        for ending in ended:
            log.error("worker lost, no attempts left", job_id=str(ending.job_id))
        if freed or ended:
            await failpoints.hit("rescue.after-reap-before-wake")
        RESCUED.labels("requeued").inc(len(freed))
        RESCUED.labels("failed").inc(len(ended))
        await self._queue.wake(freed)
        await announce(self._queue, ended)

    async def _tell_again(self) -> None:
        """What waits unseen is written to Redis once more; a hint that is still there stays as it is."""
        pending = await upkeep.due(self._database, unseen_s=UNSEEN_S)
        webhooks = await deliveries.due(self._database, unseen_s=UNSEEN_S)
        RESCUED.labels("told again").inc(len(pending))
        await self._queue.wake(pending)
        await self._queue.wake_webhooks(webhooks)
