"""A deadline that holds although a library answers to its cancellation by closing politely."""

import asyncio
from types import TracebackType

AGAIN_S = 0.05


class Deadline:
    """`async with Deadline(2.0)`: what is within has ended after so many seconds, or soon after.

    `asyncio.timeout` cancels once. SQLAlchemy then says goodbye to the server, and waits seconds for a server
    that hangs; it gives that up when it is cancelled again. Raises TimeoutError for whatever came of it.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._cancels = 0

    async def __aenter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - narrows the type: there is always one in a coroutine
        self._task = task
        self._timer = asyncio.get_running_loop().call_later(self._seconds, self._cancel)

    def _cancel(self) -> None:
        self._cancels += 1
        self._task.cancel()
        self._timer = asyncio.get_running_loop().call_later(AGAIN_S, self._cancel)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        for _ in range(self._cancels):
            self._task.uncancel()
        if self._cancels and error is not None and not self._task.cancelling():
            raise TimeoutError from error
