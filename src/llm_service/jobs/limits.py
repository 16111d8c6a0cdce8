"""How much may be handed in: submits a minute for each secret and user, and jobs that wait in all.

The rates are counted in Redis and let everything pass while it is away; the backlog is counted in PostgreSQL,
without which nothing is accepted anyway.
"""

import hashlib
import math
import time
from uuid import UUID

from llm_service.db import Database
from llm_service.errors import TooManyRequests
from llm_service.jobs.queue import JobQueue
from llm_service.jobs.store import intake
from llm_service.logs import get_logger
from llm_service.metrics import SUBMITS_REFUSED
from llm_service.settings import Settings

log = get_logger(__name__)

WINDOW_S = 60.0
RECOUNT_S = 1.0
"""How long a count of the backlog is believed. Within it the backlog may pass its cap by what is accepted."""
BACKLOG_RETRY_S = 5


class SubmitLimits:
    """The limits of one API process. A limit of 0 is none."""

    def __init__(self, database: Database, queue: JobQueue, settings: Settings) -> None:
        self._database = database
        self._queue = queue
        self._secret_rate = settings.submit_rate
        self._user_rate = settings.user_submit_rate
        self._max_backlog = settings.max_backlog
        self._backlog = 0
        self._counted_at = -math.inf
        self._is_counting = False

    async def check(self, client: str, user: UUID | str | None) -> None:
        """Raise `TooManyRequests` when a further job is one too many. `client` names the secret it came with."""
        await self._check_backlog()
        await self._check_rates(client, user)

    async def _check_rates(self, client: str, user: UUID | str | None) -> None:
        limits = []
        if self._secret_rate:
            limits.append(("secret", f"llm:rate:secret:{client}", self._secret_rate))
        if self._user_rate and user:
            limits.append(("user", f"llm:rate:user:{_digest(user)}", self._user_rate))
        if not limits:
            return
        counts = await self._queue.count([name for _, name, _ in limits], window_s=WINDOW_S)
        if counts is None:
            return
        for (whose, _, most), (count, left_s) in zip(limits, counts, strict=True):
            if count > most:
                SUBMITS_REFUSED.labels(whose).inc()
                raise TooManyRequests(
                    f"More than {most} submits a minute for one {whose}; try again after Retry-After.",
                    retry_after_s=max(1, math.ceil(left_s)),
                )

    async def _check_backlog(self) -> None:
        if not self._max_backlog:
            return
        await self._recount()
        if self._backlog >= self._max_backlog:
            SUBMITS_REFUSED.labels("backlog").inc()
            raise TooManyRequests(
                f"{self._max_backlog} jobs wait already, the most that are accepted; try again after Retry-After.",
                retry_after_s=BACKLOG_RETRY_S,
            )

    async def _recount(self) -> None:
        """One request in a second counts; the others believe the last count and do not wait for the next."""
        if self._is_counting or time.monotonic() - self._counted_at < RECOUNT_S:
            return
        self._is_counting = True
        try:
            self._backlog = await intake.count_pending(self._database, most=self._max_backlog)
            self._counted_at = time.monotonic()
        finally:
            self._is_counting = False


def _digest(user: UUID | str) -> str:
    """A key of bounded length that shows no name."""
    return hashlib.blake2b(str(user).encode(), digest_size=16).hexdigest()
