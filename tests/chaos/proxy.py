"""A TCP proxy in front of a Unix socket or a TCP port that can be told to misbehave."""

import asyncio
import contextlib
import random
import socket
from pathlib import Path
from typing import Self

PORTS = range(20_000, 32_000)
"""Below the range that outgoing connections are given: nothing takes a port while its owner is away."""


def free_port() -> int:
    for port in random.sample(PORTS, 200):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("no free port")


class Proxy:
    """Forwards what comes to `port`. Each fault lasts until `heal`, and counts what it did in `hits`."""

    def __init__(self, target: Path | int) -> None:
        self.port = free_port()
        self.hits = 0
        self._target = target
        self._server: asyncio.Server | None = None
        self._open = asyncio.Event()
        self._open.set()
        self._delay_s = 0.0
        self._poison: tuple[bytes, int] = (b"", 0)
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        await self._listen()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stop_listening()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.cut()

    def cut(self) -> None:
        """Reset every connection; new ones are served."""
        self.hits += len(self._writers)
        for writer in list(self._writers):
            writer.transport.abort()

    def refuse(self) -> None:
        """Nobody listens any more, and what was open is reset."""
        self._stop_listening()
        self.hits += 1
        self.cut()

    def hang(self) -> None:
        """Accept, forward nothing, keep open. What is held back goes on its way at `heal`, late."""
        self._open.clear()

    def delay(self, seconds: float) -> None:
        """Hold back each request for so long."""
        self._delay_s = seconds

    def cut_at(self, word: bytes, times: int) -> None:
        """Reset a connection instead of forwarding a request that holds `word`, so many times."""
        self._poison = (word, times)

    async def heal(self) -> None:
        self._open.set()
        self._delay_s, self._poison = 0.0, (b"", 0)
        if self._server is None:
            await self._listen()

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._connect, "127.0.0.1", self.port)

    def _stop_listening(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        try:
            await self._serve(reader, writer)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            self._writers.discard(writer)
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._pass_gate()
        if isinstance(self._target, Path):
            there, back = await asyncio.open_unix_connection(str(self._target))
        else:
            there, back = await asyncio.open_connection("127.0.0.1", self._target)
        self._writers.add(back)
        try:
            pumps = [
                asyncio.create_task(self._pump(reader, back, is_request=True)),
                asyncio.create_task(self._pump(there, writer, is_request=False)),
            ]
            try:
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for pump in pumps:
                    pump.cancel()
                await asyncio.gather(*pumps, return_exceptions=True)
        finally:
            self._writers.discard(back)
            back.transport.abort()

    async def _pump(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, is_request: bool
    ) -> None:
        with contextlib.suppress(OSError):
            while part := await source.read(1 << 16):
                await self._pass_gate()
                if is_request:
                    if self._is_poisoned(part):
                        return
                    if self._delay_s:
                        self.hits += 1
                        await asyncio.sleep(self._delay_s)
                sink.write(part)
                await sink.drain()

    async def _pass_gate(self) -> None:
        if not self._open.is_set():
            self.hits += 1
            await self._open.wait()

    def _is_poisoned(self, part: bytes) -> bool:
        word, times = self._poison
        if not times or word not in part:
            return False
        self._poison = (word, times - 1)
        self.hits += 1
        return True
