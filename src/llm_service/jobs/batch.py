"""Submits that arrive together are stored together: one INSERT, one commit, one round trip to Redis.

Each caller still waits for the commit of its own row, and a row that PostgreSQL refuses fails alone.
"""

from collections.abc import Awaitable, Callable, Sequence

from llm_service import failpoints
from llm_service.db import Database
from llm_service.errors import TooManyRequests
from llm_service.jobs.store import intake
from llm_service.jobs.store.intake import Accepted, NewJob
from llm_service.together import Together

MOST_WAITING = 2_000
"""Submits in line; the next one is told to come again."""
WAIT_S = 2.3
"""How long a submit waits for its commit, in line and under way: its caller was promised 2.5 s."""

Committed = Sequence[tuple[NewJob, Accepted]]


class Batcher:
    """The line of one API process. `wake` is called with what was committed, before the callers hear of it."""

    def __init__(self, database: Database, wake: Callable[[Committed], Awaitable[None]]) -> None:
        self._database = database
        self._wake = wake
        self._together = Together(self._store, weigh=_size, patience_s=WAIT_S)

    async def add(self, job: NewJob) -> Accepted:
        """Commit a new job. When this returns, it is durable.

        Raises `TooManyRequests` when the line is full, `InvalidInputData` for what PostgreSQL can't hold, and
        `ServiceUnavailable`. A caller that is cancelled leaves the line, or leaves its row where it is committed.
        """
        if len(self._together) >= MOST_WAITING:
            raise TooManyRequests("More submits arrive than can be stored; try again shortly.")
        return await self._together.ask(job)

    async def close(self) -> None:
        """Wait until everybody in line has their answer."""
        await self._together.close()

    async def _store(self, jobs: Sequence[NewJob]) -> list[Accepted]:
        accepted = await intake.add_many(self._database, jobs)
        await failpoints.hit("submit.after-commit-before-enqueue")
        await self._wake(list(zip(jobs, accepted, strict=True)))
        return accepted


def _size(job: NewJob) -> int:
    return len(job.input_json)
