"""The app in this process and event loop, with a client in front of it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx

from llm_service.app import create_app
from llm_service.settings import Settings


@asynccontextmanager
async def serving(
    settings: Settings, wire: type[httpx.ASGITransport] = httpx.ASGITransport
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a new app. The app's lifespan has a task of its own: it must end in the task it began in."""
    app = create_app(settings)
    ready, stop = asyncio.Event(), asyncio.Event()

    async def live() -> None:
        async with app.lifespan():
            ready.set()
            await stop.wait()

    task = asyncio.create_task(live())
    await ready.wait()
    transport = wire(app=app, raise_app_exceptions=False)  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client
    stop.set()
    await task
