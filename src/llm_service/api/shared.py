"""One answer for all who ask for it while it is being found."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Shared(Generic[T]):
    """Finds something out once at a time, however many ask: a crowd costs no more than its first."""

    def __init__(self, find: Callable[[], Awaitable[T]]) -> None:
        self._find = find
        self._under_way: asyncio.Task[T] | None = None

    async def get(self) -> T:
        """What is found out now, by this call or by one under way. Raises what finding it raised."""
        if self._under_way is None or self._under_way.done():
            self._under_way = asyncio.create_task(self._once())
        return await asyncio.shield(self._under_way)

    async def _once(self) -> T:
        return await self._find()
