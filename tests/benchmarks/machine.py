"""What it was measured on, without names of hosts."""

import os
import platform
import re
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import asyncpg
from tests.benchmarks.processes import ROOT

from llm_service.devstack import Servers

PACKAGES = "litestar msgspec uvicorn uvloop SQLAlchemy asyncpg arq redis aiohttp"
PEER_PACKAGES = "fastapi pydantic celery kombu httpx psycopg orjson"


def _first(path: str, pattern: str) -> str:
    found = re.search(pattern, Path(path).read_text(), re.MULTILINE) if Path(path).exists() else None
    return found.group(1).strip() if found else "unknown"


class Watch:
    """How busy the machine was, and how much of that was not the benchmark. Made before anything is started."""

    def __init__(self) -> None:
        self._begun, self._load, self._busy_s = time.monotonic(), os.getloadavg()[0], _busy_s()

    def told(self) -> str:
        """A line of Markdown, once everything that was started has ended."""
        took_s = time.monotonic() - self._begun
        strangers = (_busy_s() - self._busy_s - sum(os.times()[:4])) / took_s
        return (
            f"- {datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {took_s / 60:.1f} minutes; load average {self._load:.1f}"
            f" before it and {os.getloadavg()[0]:.1f} at its end; other programs used"
            f" {max(strangers, 0):.1f} of {os.cpu_count()} cores meanwhile"
        )


def _busy_s() -> float:
    """CPU seconds that all programs of the machine used so far, and those taken from it by its host."""
    words = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    user, nice, system, _, _, irq, softirq, steal = (int(word) for word in words)
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


async def describe(servers: Servers) -> list[str]:
    """Lines of Markdown. Raises RuntimeError where a commit would not be durable."""
    sql = await asyncpg.connect(servers.database_url)
    names = ("fsync", "synchronous_commit", "full_page_writes", "shared_buffers", "server_version")
    shown = {name: await sql.fetchval(f"SHOW {name}") for name in names}
    await sql.close()
    if (shown["fsync"], shown["synchronous_commit"], shown["full_page_writes"]) != ("on", "on", "on"):
        raise RuntimeError(f"PostgreSQL is not durable: {shown}")
    kernel = platform.release().split("-")[0]
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return [
        (
            f"- {_first('/proc/cpuinfo', r'^model name.*: (.*)')}, {os.cpu_count()} cores, {memory_gib:.0f} GiB,"
            f" {platform.system()} {kernel}, Python {platform.python_version()}"
        ),
        (
            f"- PostgreSQL {shown['server_version'].split()[0]} (fsync and synchronous_commit on, shared_buffers"
            f" {shown['shared_buffers']}), {servers.children[0].spec.name} on Unix sockets, appendfsync everysec"
        ),
        f"- ours: {', '.join(f'{name} {version(name)}' for name in PACKAGES.split())}",
        f"- peer: {', '.join(_locked(PEER_PACKAGES.split()))}; uvicorn, uvloop, SQLAlchemy, asyncpg and redis as ours",
    ]


def _locked(names: list[str]) -> list[str]:
    lines = (ROOT / "requirements-bench.txt").read_text().splitlines()
    locked = dict(line.split(" ")[0].split("==") for line in lines if "==" in line and line[0].isalpha())
    return [f"{name} {locked[name]}" for name in names]
