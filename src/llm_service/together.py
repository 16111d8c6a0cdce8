"""What is asked at the same time is answered together: one statement or round trip for all, and no timer.

Whatever is asked while a batch is under way goes with the next one, so that alone nobody waits, and under load a
batch costs little more than one did.
"""

import asyncio
import contextvars
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Generic, TypeVar

from llm_service.errors import ServiceUnavailable

Asked = TypeVar("Asked")
Answer = TypeVar("Answer")

MOST_TOGETHER = 200
MOST_BYTES = 4 * 1024 * 1024
"""Of what `weigh` says; one that weighs more goes alone."""


class _Place(Generic[Asked, Answer]):
    """One question in line, and who is to hear the answer."""

    __slots__ = ("answer", "asked", "since")

    def __init__(self, asked: Asked, loop: asyncio.AbstractEventLoop) -> None:
        self.asked = asked
        self.answer: asyncio.Future[Answer] = loop.create_future()
        self.since = loop.time()


class Together(Generic[Asked, Answer]):
    """A line of questions of one kind.

    `answer_all` answers as many as it is given, in their order. When it fails, all are told; but where only some
    may be to blame (anything but `ServiceUnavailable`), the batch is halved until it is found who, so that one
    bad question fails alone. `left_behind` is given what was answered to somebody who has left meanwhile.
    With `patience_s` nobody waits longer, in line and under way: they are told `ServiceUnavailable`.
    """

    def __init__(
        self,
        answer_all: Callable[[Sequence[Asked]], Awaitable[Sequence[Answer]]],
        *,
        most: int = MOST_TOGETHER,
        weigh: Callable[[Asked], int] = lambda _: 0,
        left_behind: Callable[[Answer], Awaitable[None]] | None = None,
        patience_s: float | None = None,
    ) -> None:
        self._answer_all = answer_all
        self._most = most
        self._weigh = weigh
        self._left_behind = left_behind
        self._patience_s = patience_s
        self._line: deque[_Place[Asked, Answer]] = deque()
        self._aboard: Sequence[_Place[Asked, Answer]] = ()
        self._under_way: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        """How many wait for the next batch."""
        return len(self._line)

    async def ask(self, asked: Asked) -> Answer:
        """Ask, together with all others who do so now. A caller that is cancelled leaves the line."""
        loop = asyncio.get_running_loop()
        place: _Place[Asked, Answer] = _Place(asked, loop)
        self._line.append(place)
        if self._patience_s is not None and self._timer is None:
            # One timer for all: one for each caller would cost more than their share of the statement.
            self._timer = loop.call_later(self._patience_s, self._lose_patience, self._patience_s)
        if self._under_way is None:
            # In a context of its own: what it logs belongs to no single caller.
            self._under_way = asyncio.create_task(self._go(), context=contextvars.Context())
        return await place.answer

    async def close(self) -> None:
        """Wait until everybody in line has their answer."""
        while self._under_way is not None:
            await asyncio.wait([self._under_way])

    async def _go(self) -> None:
        await asyncio.sleep(0)  # those who ask in the same turn of the loop come along
        try:
            while together := self._board():
                self._aboard = together
                await self._send(together)
        finally:
            self._aboard = ()
            self._under_way = None

    def _lose_patience(self, patience_s: float) -> None:
        loop = asyncio.get_running_loop()
        waiting = [place for place in (*self._aboard, *self._line) if not place.answer.done()]
        late = [place for place in waiting if place.since + patience_s <= loop.time()]
        _fail(late, ServiceUnavailable())
        left = waiting[len(late) :]  # they are in the order of their coming
        again = partial(self._lose_patience, patience_s)
        self._timer = loop.call_at(left[0].since + patience_s, again) if left else None

    def _board(self) -> list[_Place[Asked, Answer]]:
        """The next of the line that still wait, as many as go together."""
        together: list[_Place[Asked, Answer]] = []
        weight = 0
        while self._line and len(together) < self._most and weight < MOST_BYTES:
            place = self._line.popleft()
            if not place.answer.done():
                together.append(place)
                weight += self._weigh(place.asked)
        return together

    async def _send(self, together: Sequence[_Place[Asked, Answer]]) -> None:
        try:
            answers = await self._answer_all([place.asked for place in together])
        except Exception as error:  # noqa: BLE001 - each caller raises it
            if len(together) == 1 or isinstance(error, ServiceUnavailable):
                _fail(together, error)
                return
        else:
            await self._tell(together, answers)
            return
        half = len(together) // 2
        await self._send(together[:half])
        await self._send(together[half:])

    async def _tell(self, together: Sequence[_Place[Asked, Answer]], answers: Sequence[Answer]) -> None:
        for place, answer in zip(together, answers, strict=True):
            if not place.answer.done():
                place.answer.set_result(answer)
            elif self._left_behind is not None:
                await self._left_behind(answer)


def _fail(together: Sequence[_Place[Asked, Answer]], error: Exception) -> None:
    for place in together:
        if not place.answer.done():
            place.answer.set_exception(error)
