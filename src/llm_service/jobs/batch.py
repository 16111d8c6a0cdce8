"""Submits that arrive together are stored together: one INSERT, one commit, one round trip to Redis.

Nobody waits for a timer: whatever arrives while a batch is under way goes with the next one. Each caller still
waits for the commit of its own row, and a row that PostgreSQL refuses fails alone.
"""

import asyncio
import contextvars
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

from llm_service import failpoints
from llm_service.db import Database
from llm_service.errors import ServiceUnavailable, TooManyRequests
from llm_service.jobs.store import intake
from llm_service.jobs.store.intake import Accepted, NewJob

MOST_WAITING = 2_000
"""Submits in line; the next one is told to come again."""
MOST_TOGETHER = 200
MOST_BYTES = 4 * 1024 * 1024
WAIT_S = 2.3
"""How long a submit waits for its commit, in line and under way: its caller was promised 2.5 s."""

Committed = Sequence[tuple[NewJob, Accepted]]


class _Waiting:
    """A submit in line, and whom to tell."""

    __slots__ = ("answer", "job")

    def __init__(self, job: NewJob, answer: asyncio.Future[Accepted]) -> None:
        self.job = job
        self.answer = answer


class Batcher:
    """The line of one API process. `wake` is called with what was committed, before the callers hear of it."""

    def __init__(self, database: Database, wake: Callable[[Committed], Awaitable[None]]) -> None:
        self._database = database
        self._wake = wake
        self._line: deque[_Waiting] = deque()
        self._under_way: asyncio.Task[None] | None = None

    async def add(self, job: NewJob) -> Accepted:
        """Commit a new job. When this returns, it is durable.

        Raises `TooManyRequests` when the line is full, `InvalidInputData` for what PostgreSQL can't hold, and
        `ServiceUnavailable`. A caller that is cancelled leaves the line, or leaves its row where it is committed.
        """
        if len(self._line) >= MOST_WAITING:
            raise TooManyRequests("More submits arrive than can be stored; try again shortly.")
        waiting = _Waiting(job, asyncio.get_running_loop().create_future())
        self._line.append(waiting)
        if self._under_way is None:
            # In a context of its own: what it logs belongs to no single request.
            self._under_way = asyncio.create_task(self._go(), context=contextvars.Context())
        try:
            async with asyncio.timeout(WAIT_S):
                return await waiting.answer
        except TimeoutError:
            raise ServiceUnavailable from None

    async def close(self) -> None:
        """Wait until everybody in line has their answer."""
        while self._under_way is not None:
            await asyncio.wait([self._under_way])

    async def _go(self) -> None:
        await asyncio.sleep(0)  # requests that were read in the same turn of the loop come along
        try:
            while together := self._board():
                await self._store(together)
        finally:
            self._under_way = None

    def _board(self) -> list[_Waiting]:
        """The next of the line that still wait, as many as go together."""
        together: list[_Waiting] = []
        size = 0
        while self._line and len(together) < MOST_TOGETHER and size < MOST_BYTES:
            waiting = self._line.popleft()
            if not waiting.answer.done():
                together.append(waiting)
                size += len(waiting.job.input_json)
        return together

    async def _store(self, together: list[_Waiting]) -> None:
        try:
            answers = await intake.add_many(self._database, [waiting.job for waiting in together])
            committed = [
                (waiting.job, answer)
                for waiting, answer in zip(together, answers, strict=True)
                if isinstance(answer, Accepted)
            ]
            await failpoints.hit("submit.after-commit-before-enqueue")
            await self._wake(committed)
        except Exception as error:  # noqa: BLE001 - each caller raises it
            _tell(together, [error] * len(together))
        else:
            _tell(together, answers)


def _tell(together: Sequence[_Waiting], answers: Sequence[Accepted | Exception]) -> None:
    for waiting, answer in zip(together, answers, strict=True):
        if waiting.answer.done():
            continue  # its caller has left
        if isinstance(answer, Exception):
            waiting.answer.set_exception(answer)
        else:
            waiting.answer.set_result(answer)
