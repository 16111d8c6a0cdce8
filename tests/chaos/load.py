"""Callers that go on calling while something breaks, and remember each answer."""

import asyncio
import time
from collections import Counter
from typing import Self

import aiohttp
from tests.chaos.stack import Stack


class Load:
    """So many requests a second, each on its own: none waits for another."""

    def __init__(
        self, stack: Stack, per_s: float, *, prefix: str = "load", path: str | None = None, steps: int = 1
    ) -> None:
        self.statuses: Counter[int] = Counter()
        self.seconds: list[float] = []
        self.unanswered: list[str] = []
        self._stack, self._pause_s, self._prefix, self._path, self._steps = (
            stack,
            1 / per_s,
            prefix,
            path,
            steps,
        )
        self._calls: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._go_on())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await asyncio.gather(*self._calls)

    @property
    def p95_s(self) -> float:
        return sorted(self.seconds)[int(len(self.seconds) * 0.95)]

    async def _go_on(self) -> None:
        number = 0
        while True:
            number += 1
            call = asyncio.create_task(self._call(f"once-{self._prefix}-{number}"))
            self._calls.add(call)
            call.add_done_callback(self._calls.discard)
            await asyncio.sleep(self._pause_s)

    async def _call(self, tag: str) -> None:
        started = time.monotonic()
        try:
            if self._path is None:
                status, _ = await self._stack.submit(tag, key=f"key-{tag}", steps=self._steps)
            else:
                status, _, _ = await self._stack.call("GET", self._path)
        except (aiohttp.ClientError, OSError, TimeoutError):
            self.unanswered.append(tag)
            return
        self.statuses[status] += 1
        self.seconds.append(time.monotonic() - started)
        if status != 202:
            self.unanswered.append(tag)

    async def settle(self) -> None:
        """Ask again, with its key, for everything that got no 202."""
        for tag in self.unanswered:
            await self._stack.submit_surely(tag, key=f"key-{tag}", steps=self._steps)
