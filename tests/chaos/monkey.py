"""A seeded monkey: submits jobs, breaks things, and says what it did. The same seed breaks the same things."""

import asyncio
import contextlib
import random
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import aiohttp
from tests.chaos.invariants import Report, check
from tests.chaos.stack import Stack, heal_servers

SUBMITTERS = 6
PAUSE_S = 0.25
DRAIN_WITHIN_S = 90.0


class Monkey:
    """Every fault holds for a while and is healed by the same step, except what ends with it."""

    def __init__(self, stack: Stack, seed: int) -> None:
        self.stack = stack
        self.done: Counter[str] = Counter()
        self.unanswered = 0
        self._chance = random.Random(seed)
        self._stop = asyncio.Event()
        self._faults: list[Callable[[], Awaitable[None]]] = [
            self.kill_worker,
            self.kill_worker,
            self.freeze_worker,
            self.freeze_worker,
            self.stop_worker,
            self.kill_api,
            self.restart_redis,
            self.hang_redis,
            self.restart_postgres,
            self.crash_postgres,
            self.crash_backend,
            self.postgres_outage,
            self.cut_worker_off,
            self.slow_postgres,
            self.cut_connections,
        ]

    async def run(self, seconds: float, *, drain_within_s: float = DRAIN_WITHIN_S) -> Report:
        """Load and faults for so long, then healing, then the invariants."""
        callers = [asyncio.create_task(self._submit_on(number)) for number in range(SUBMITTERS)]
        deadline = time.monotonic() + seconds
        order = self._in_turns()
        while time.monotonic() < deadline:
            fault = next(order)
            await fault()
            self.done[fault.__name__] += 1
            await asyncio.sleep(self._chance.uniform(0.5, 3.0))
        await self.stack.heal()
        self._stop.set()
        await asyncio.gather(*callers)
        return await check(self.stack, drain_within_s)

    def _in_turns(self) -> Iterator[Callable[[], Awaitable[None]]]:
        """Every fault once in a random order, then again in another."""
        while True:
            yield from self._chance.sample(self._faults, len(self._faults))

    async def _submit_on(self, number: int) -> None:
        """Half of the callers send a key and insist until they have their 202; the others take what they get."""
        count = 0
        while not self._stop.is_set():
            count += 1
            options: dict[str, Any] = {
                "steps": 1 + count % 3,
                "webhook": count % 4 == 0,
                "priority": count % 11,
            }
            if number % 2:
                tag = f"once-{number}-{count}"
                await self.stack.submit_surely(tag, within_s=120, **options)
            else:
                try:
                    await self.stack.submit(f"any-{number}-{count}", **options)
                except (aiohttp.ClientError, OSError, TimeoutError):
                    self.unanswered += 1
            await asyncio.sleep(PAUSE_S)

    # --- the faults -------------------------------------------------------------------------------------

    async def _for_a_while(self, least: float, most: float) -> None:
        await asyncio.sleep(self._chance.uniform(least, most))

    async def kill_worker(self) -> None:
        self._chance.choice(self.stack.workers).send(signal.SIGKILL)

    async def stop_worker(self) -> None:
        self._chance.choice(self.stack.workers).send(signal.SIGTERM)

    async def freeze_worker(self) -> None:
        """Longer than its lease, or not quite."""
        worker = self._chance.choice(self.stack.workers)
        pid = worker.pid
        worker.send(signal.SIGSTOP)
        await self._for_a_while(0.5 * self.stack.lease_s, 2.0 * self.stack.lease_s)
        if worker.child.is_running and worker.pid == pid:
            worker.send(signal.SIGCONT)

    async def kill_api(self) -> None:
        self._chance.choice(self.stack.apis).send(signal.SIGKILL)

    async def restart_redis(self) -> None:
        await self.stack.restart_redis(down_s=self._chance.uniform(0.0, 2.0))

    async def hang_redis(self) -> None:
        self.stack.servers.redis.process.send_signal(signal.SIGSTOP)  # type: ignore[union-attr]
        await self._for_a_while(1.0, 5.0)
        self.stack.servers.redis.process.send_signal(signal.SIGCONT)  # type: ignore[union-attr]

    async def restart_postgres(self) -> None:
        await self.stack.restart_postgres(signal.SIGINT)

    async def crash_postgres(self) -> None:
        await self.stack.restart_postgres(signal.SIGQUIT, down_s=self._chance.uniform(0.0, 1.0))

    async def crash_backend(self) -> None:
        await self.stack.crash_a_backend()
        await heal_servers(self.stack.servers)

    async def postgres_outage(self) -> None:
        for proxy in self.stack.pg.values():
            proxy.refuse()
        await self._for_a_while(2.0, 1.5 * self.stack.lease_s)
        await self._heal_proxies()

    async def cut_worker_off(self) -> None:
        """From PostgreSQL only: it can still ask the model."""
        self.stack.pg[self._chance.choice(self.stack.workers).name].hang()
        await self._for_a_while(1.0, 1.5 * self.stack.lease_s)
        await self._heal_proxies()

    async def slow_postgres(self) -> None:
        for proxy in self.stack.pg.values():
            proxy.delay(0.3)
        await self._for_a_while(2.0, 4.0)
        await self._heal_proxies()

    async def cut_connections(self) -> None:
        for proxy in (*self.stack.pg.values(), self.stack.redis):
            proxy.cut()

    async def _heal_proxies(self) -> None:
        with contextlib.suppress(OSError):
            for proxy in (*self.stack.pg.values(), self.stack.redis):
                await proxy.heal()
