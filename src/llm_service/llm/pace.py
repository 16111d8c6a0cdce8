"""How many calls a model server gets at once: all there are while it keeps up, fewer after it answered 429.

Additive increase, multiplicative decrease, as TCP does it: a refusal halves what was under way, each answer
gives a part of one place back, a whole one for each round of answers.
"""

import asyncio
import math
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Pace:
    """Shared by all calls of one process to one server."""

    def __init__(self) -> None:
        self.limit = math.inf
        self._running = 0
        self._room = asyncio.Event()
        self._round = 0
        self._closed_until = -math.inf

    @asynccontextmanager
    async def place(self) -> AsyncIterator[int]:
        """Wait for a place among the calls under way, and until the server is ready for more.

        Yields the round in which the call begins, for `note_refusal`.
        """
        while self._running >= self.limit:
            self._room.clear()
            await self._room.wait()
        self._running += 1
        try:
            if (closed_s := self._closed_until - time.monotonic()) > 0:
                await asyncio.sleep(spread(closed_s))
            yield self._round
        finally:
            self._running -= 1
            self._room.set()

    def note_refusal(self, begun_in: int, wait_s: float | None) -> None:
        """The server answered 429, and perhaps said for how many seconds to leave it alone.

        Calls that were under way together are one sign: only the first refusal of a round shrinks.
        """
        self._closed_until = max(self._closed_until, time.monotonic() + (wait_s or 0.0))
        if begun_in == self._round:
            self._round += 1
            self.limit = max(1.0, min(self.limit, self._running) / 2)

    def note_answer(self) -> None:
        self.limit += 1 / self.limit
        self._room.set()


def spread(seconds: float) -> float:
    """Up to half as long again: those who were told the same must not come back together."""
    return seconds * random.uniform(1.0, 1.5)  # noqa: S311 - spreads, hides nothing
