"""What every part of the benchmark works with: how much is measured, the far end of the wire, clients."""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import aiohttp
import msgspec
from tests.benchmarks import seeding
from tests.benchmarks.load import Generator, body
from tests.benchmarks.processes import ROOT
from tests.benchmarks.sides import SECRET, Side

QUERIES = {
    "default": "",
    "limit_results 25": "limit_results=25",
    "limit_results 500": "limit_results=500",
    "Today": "limit_results=Today",
    "7 Days": f"limit_results={quote('7 Days')}",
    "30 Days": f"limit_results={quote('30 Days')}",
    "failed": "status=failed",
    "failed + Today": "status=failed&limit_results=Today",
    "one user": f"user_id={seeding.USER}",
    "one action": f"action={quote(seeding.ACTION)}",
}


class Size(msgspec.Struct, frozen=True, kw_only=True):
    """How long and how much."""

    rounds: int = 3
    submit_s: float = 5
    list_s: float = 3
    alone_s: float = 2
    small_s: float = 1
    pickups: int = 100
    idle_s: float = 10
    watched_s: float = 8
    jobs: int = 5_000
    peer_jobs: int = 1_000
    waves: int = 8
    peer_waves: int = 5
    rows: int = 1_000_000
    queries: tuple[str, ...] = tuple(QUERIES)


SHORT: dict[str, Any] = {
    "rounds": 1,
    "submit_s": 2,
    "list_s": 1,
    "alone_s": 1,
    "pickups": 20,
    "idle_s": 2,
    "watched_s": 2,
    "peer_jobs": 200,
    "waves": 2,
    "peer_waves": 1,
    "queries": ("default", "30 Days", "failed + Today", "one user"),
}


class FarEnd:
    """The model server and receiver, seen from the benchmark."""

    async def __aenter__(self) -> Self:
        argv = [sys.executable, "-m", "tests.benchmarks.far_end"]
        self._child = subprocess.Popen(argv, stdout=subprocess.PIPE, cwd=ROOT)
        assert self._child.stdout is not None
        self.root = f"http://127.0.0.1:{int(self._child.stdout.readline())}"
        self._session = aiohttp.ClientSession()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()
        self._child.terminate()
        self._child.wait(10)

    def model(self, latency_ms: int) -> str:
        return f"{self.root}/model/{latency_ms}/v1"

    async def reset(self) -> None:
        async with self._session.post(f"{self.root}/reset"):
            pass

    async def wait(self, *, calls: int = 0, hooks: int = 0, within_s: float = 900) -> dict[str, Any]:
        """What it saw, as soon as so much came. Raises TimeoutError with what did come."""
        deadline = time.monotonic() + within_s
        while True:
            async with self._session.get(f"{self.root}/wait?calls={calls}&hooks={hooks}") as answer:
                seen: dict[str, Any] = json.loads(await answer.read())
            if seen["calls"] >= calls and seen["hooks"] >= hooks:
                return seen
            if time.monotonic() > deadline:
                raise TimeoutError(f"waited for {calls} calls and {hooks} webhooks, got {seen}")


class Bench(msgspec.Struct, frozen=True):
    peer: Side
    ours: Side
    far_end: FarEnd
    generator: Generator
    size: Size
    folder: Path

    @property
    def sides(self) -> tuple[Side, Side]:
        return self.peer, self.ours


class Submitter:
    """Hands jobs to an API over HTTP, one or many at a time."""

    def __init__(self, session: aiohttp.ClientSession, port: int, hook: str) -> None:
        self._session, self._url, self._hook = session, f"http://127.0.0.1:{port}/api/v1/workflow", hook

    async def submit(self, number: int) -> float:
        """The moment just before it was sent, on the monotonic clock."""
        content = json.dumps(body(number, self._hook)).encode()
        headers = {"X-API-Secret": SECRET, "Content-Type": "application/json"}
        sent_at = time.monotonic()
        async with self._session.post(self._url, data=content, headers=headers) as answer:
            if answer.status != 202:
                raise RuntimeError(f"{self._url}: {answer.status} {await answer.text()}")
            await answer.read()
        return sent_at

    async def submit_many(self, count: int) -> None:
        numbers = iter(range(count))

        async def client() -> None:
            for number in numbers:
                await self.submit(number)

        await asyncio.gather(*(client() for _ in range(32)))


@asynccontextmanager
async def serving(bench: Bench, side: Side) -> AsyncIterator[Submitter]:
    """An API of the side, with nothing in its tables."""
    await side.empty()
    await bench.far_end.reset()
    process, port = side.start_api()
    with process:
        async with aiohttp.ClientSession() as session:
            yield Submitter(session, port, f"{bench.far_end.root}/hook")
        process.check()
    await side.empty()
