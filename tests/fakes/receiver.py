"""A webhook receiver on loopback that keeps what came and answers as it is told."""

import asyncio
import json
from typing import Any, Self

import msgspec
from aiohttp import web


class Received(msgspec.Struct):
    body: bytes
    headers: dict[str, str]

    def json(self) -> dict[str, Any]:
        decoded: dict[str, Any] = json.loads(self.body)
        return decoded


class Receiver:
    """Answers with `statuses` in turn, the last one again and again; `url` is where to post."""

    def __init__(self) -> None:
        self.received: list[Received] = []
        self.statuses: list[int] = [200]
        self.answer_headers: dict[str, str] = {}
        self.answer = b"thanks"
        self.latency_s = 0.0
        self._arrived = asyncio.Condition()

    async def __aenter__(self) -> Self:
        application = web.Application(client_max_size=4 * 1024 * 1024)
        application.router.add_post("/{tail:.*}", self._receive)
        self._runner = web.AppRunner(application, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/hook"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    async def _receive(self, request: web.Request) -> web.Response:
        body = await request.read()
        async with self._arrived:
            self.received.append(Received(body, dict(request.headers)))
            self._arrived.notify_all()
        await asyncio.sleep(self.latency_s)
        status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        return web.Response(status=status, body=self.answer, headers=self.answer_headers)

    async def wait_for(self, count: int, *, within_s: float = 20.0) -> list[Received]:
        """The messages, as soon as there are so many. Raises TimeoutError with what did come."""
        try:
            async with asyncio.timeout(within_s), self._arrived:
                await self._arrived.wait_for(lambda: len(self.received) >= count)
        except TimeoutError:
            raise TimeoutError(f"{len(self.received)} of {count} webhooks came within {within_s} s") from None
        return self.received
