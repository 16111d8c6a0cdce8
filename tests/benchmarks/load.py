"""The load: `wrk` where it is installed, else a generator of our own in a process of its own.

Both keep as many requests open as there are connections and measure from the first byte sent to the whole answer.
"""

import asyncio
import itertools
import json
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import uvloop
from tests.benchmarks.report import percentile

BODIES = 1000
USERS = 2000
DONE = """
function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format('RESULT {"requests":%d,"seconds":%.4f,"p50_ms":%.4f,"p95_ms":%.4f,"p99_ms":%.4f,"errors":%d}\\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(95) / 1e3,
    latency:percentile(99) / 1e3,
    e.connect + e.read + e.write + e.status + e.timeout))
end
"""


class Measured(msgspec.Struct, frozen=True):
    requests: int
    seconds: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    errors: int

    @property
    def rate(self) -> float:
        """Requests a second that were answered as they should be."""
        return (self.requests - self.errors) / self.seconds


def body(number: int, hook: str) -> dict[str, Any]:
    """A submit of about 600 bytes, another user each time."""
    user = number % USERS
    return {
        "workflow_name": "completion",
        "input_data": {
            "prompt": "Summarise the day's mission for the crew. " * 4 + f"#{number}",
            "system": "Be brief.",
        },
        "user_id": f"{user:08x}-0000-4000-8000-{user:012x}",
        "username": f"user{user}@example.com",
        "action": "generate mission report",
        "webhook_url": hook,
        "webhook_secret": "a secret of this job",
        "priority": number % 11,
        "debug_mode": False,
    }


def raw_get(path: str, secret: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: bench\r\nX-API-Secret: {secret}\r\n\r\n".encode()


def raw_submits(secret: str, hook: str) -> list[bytes]:
    requests = []
    for number in range(BODIES):
        content = json.dumps(body(number, hook)).encode()
        head = (
            f"POST /api/v1/workflow HTTP/1.1\r\nHost: bench\r\nX-API-Secret: {secret}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
        )
        requests.append(head.encode() + content)
    return requests


class Generator:
    """Sends prebuilt requests in turn. `folder` is for the files that the other process reads."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._wrk = shutil.which("wrk")
        self.name = "wrk" if self._wrk else "a generator in Python (wrk is not installed)"

    def run(self, requests: list[bytes], *, port: int, connections: int, seconds: float) -> Measured:
        if self._wrk is None:
            argv = self._own(requests, port, connections, seconds)
        else:
            argv = self._by_wrk(self._wrk, requests, port, connections, seconds)
        return self._run(argv, seconds)

    def _run(self, argv: list[str], seconds: float) -> Measured:
        ran = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=seconds + 90)
        for line in ran.stdout.splitlines():
            if line.startswith("RESULT "):
                return msgspec.json.decode(line.removeprefix("RESULT "), type=Measured)
        raise RuntimeError(f"the load generator failed: {ran.stdout[-500:]} {ran.stderr[-500:]}")

    def run_paced(self, requests: list[bytes], *, port: int, per_s: float, seconds: float) -> Measured:
        """So many a second, evenly over 16 connections, by the generator of our own: `wrk` knows no pace."""
        return self._run(self._own(requests, port, 16, seconds, every_s=16 / per_s), seconds)

    def _by_wrk(
        self, wrk: str, requests: list[bytes], port: int, connections: int, seconds: float
    ) -> list[str]:
        # Lua reads decimal escapes: bytes of any kind pass through.
        pool = ",\n".join('"' + "".join(f"\\{byte:03d}" for byte in request) + '"' for request in requests)
        script = self._folder / "load.lua"
        script.write_text(
            f"local pool, n = {{\n{pool}\n}}, 0\n"
            f"function request() n = n + 1; return pool[n % {len(requests)} + 1] end\n{DONE}"
        )
        size = ["-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--timeout", "20s"]
        return [wrk, *size, "--latency", "-s", str(script), f"http://127.0.0.1:{port}/"]

    def _own(
        self, requests: list[bytes], port: int, connections: int, seconds: float, every_s: float = 0
    ) -> list[str]:
        plan = self._folder / "load.msgpack"
        plan.write_bytes(msgspec.msgpack.encode((requests, port, connections, seconds, every_s)))
        return [sys.executable, "-m", "tests.benchmarks.load", str(plan)]


class _Client(asyncio.Protocol):
    """One connection: a request, its whole answer, the next request, `every_s` after the one before at the earliest."""

    def __init__(
        self, requests: "itertools.cycle[bytes]", times: list[float], errors: list[int], every_s: float
    ) -> None:
        self._requests, self._times, self._errors, self._every_s = requests, times, errors, every_s
        self._buffer = b""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._next_at = self._loop.time() + random.uniform(0, self._every_s)
        self._send_next()

    def _send_next(self) -> None:
        if not self._every_s:
            self._send()
            return
        self._loop.call_at(self._next_at, self._send)
        self._next_at = max(self._next_at, self._loop.time()) + self._every_s

    def _send(self) -> None:
        self._sent_at = time.perf_counter()
        self._transport.write(next(self._requests))

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, found, rest = self._buffer.partition(b"\r\n\r\n")
        if not found:
            return
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        if len(rest) < length:
            return
        self._times.append(1000 * (time.perf_counter() - self._sent_at))
        if not head.startswith(b"HTTP/1.1 2"):
            self._errors.append(1)
        self._buffer = b""
        self._send_next()


async def _generate(
    requests: list[bytes], port: int, connections: int, seconds: float, every_s: float
) -> Measured:
    times: list[float] = []
    errors: list[int] = []
    turn = itertools.cycle(requests)
    loop = asyncio.get_running_loop()
    start = time.perf_counter()
    made = [
        await loop.create_connection(lambda: _Client(turn, times, errors, every_s), "127.0.0.1", port)
        for _ in range(connections)
    ]
    await asyncio.sleep(seconds)
    took = time.perf_counter() - start
    for transport, _ in made:
        transport.abort()
    p50, p95, p99 = (percentile(times, share) for share in (0.5, 0.95, 0.99))
    return Measured(len(times), took, p50, p95, p99, len(errors))


if __name__ == "__main__":
    asked = msgspec.msgpack.decode(
        Path(sys.argv[1]).read_bytes(), type=tuple[list[bytes], int, int, float, float]
    )
    print("RESULT", msgspec.json.encode(uvloop.run(_generate(*asked))).decode())
