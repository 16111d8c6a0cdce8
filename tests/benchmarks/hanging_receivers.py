"""What 500 receivers that hang cost everybody else: `python tests/benchmarks/hanging_receivers.py`.

One real worker process, real sockets. Three times the same load, beside no hanging delivery, beside 500 to one
host, and beside 500 to as many hosts: how many jobs end in a second, and how long after its job's end the
webhook of a host that answers arrives.
"""

import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import asyncpg
from aiohttp import web
from uuid_utils.compat import uuid7

from llm_service.db import API_LIMITS, Database
from llm_service.devstack import Servers, start_servers
from llm_service.jobs.queue import JobQueue, connect
from llm_service.jobs.store import intake
from llm_service.jobs.store.intake import NewJob
from llm_service.jobs.store.leases import Hint
from llm_service.migrations import upgrade
from llm_service.settings import load_settings

HANGING, JOBS, HEALTHY = 500, int(os.environ.get("JOBS", "3000")), 40
PROMPT = json.dumps({"prompt": "The river Svratka flows through Brno."})


class Hanging:
    """Listens on as many loopback addresses and never answers."""

    def __init__(self) -> None:
        self.open = 0
        self.most = 0

    async def start(self, hosts: list[str]) -> int:
        first = await asyncio.start_server(self._hold, hosts[0], 0, backlog=1024)
        port = int(first.sockets[0].getsockname()[1])
        for host in hosts[1:]:
            await asyncio.start_server(self._hold, host, port, backlog=8)
        return port

    async def _hold(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        self.most = max(self.most, self.open)
        with suppress(ConnectionError):
            while await reader.read(65_536):
                pass
        self.open -= 1
        writer.close()


class Load:
    def __init__(self, database: Database, queue: JobQueue, sql: asyncpg.Connection) -> None:
        self.database, self.queue, self.sql = database, queue, sql

    async def add(self, urls: Sequence[str | None]) -> list[Hint]:
        jobs = [
            NewJob(id=uuid7(), workflow_name="completion", priority=0, input_json=PROMPT, webhook_url=url)
            for url in urls
        ]
        await intake.add_many(self.database, jobs)
        now = datetime.now(UTC)
        return [Hint(job.id, 0, job.workflow_name, 0, now) for job in jobs]

    async def submit(self, *urls: str | None) -> list[UUID]:
        """Commit all, then wake the worker once."""
        hints: list[Hint] = []
        for start in range(0, len(urls), 200):
            hints += await self.add(urls[start : start + 200])
        await self.queue.wake(hints)
        return [hint.job_id for hint in hints]

    async def wait_for_all(self) -> None:
        unfinished = (
            "SELECT count(*) FROM llm_workflow_jobs WHERE status NOT IN ('completed', 'failed', 'cancelled')"
        )
        while await self.sql.fetchval(unfinished):
            await asyncio.sleep(0.05)


def cpu_of(process: int) -> float:
    """CPU seconds used so far: less moved by what else the machine does than the time that passed."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def measure(
    load: Load,
    worker: int,
    name: str,
    hanging: Hanging,
    urls: list[str],
    healthy: str,
    arrived: dict[str, float],
) -> None:
    await load.sql.execute("TRUNCATE llm_workflow_jobs CASCADE")
    await asyncio.sleep(1)
    hanging.most = 0
    await load.submit(*urls)
    await load.wait_for_all()
    await asyncio.sleep(1.5)
    held, cpu_s = hanging.open, cpu_of(worker)
    # Some with a webhook in between: it goes to the host that answers.
    work = await load.submit(*(healthy if n % (JOBS // HEALTHY) == 0 else None for n in range(JOBS)))
    await load.wait_for_all()
    cpu_s = cpu_of(worker) - cpu_s
    seconds = await load.sql.fetchval(
        "SELECT extract(epoch FROM max(completed_at) - min(started_at)) FROM llm_workflow_jobs WHERE id = ANY($1)",
        work,
    )
    quiet: list[UUID] = []
    for _ in range(20):
        await asyncio.sleep(0.1)
        quiet += await load.submit(healthy)
    told = [job for n, job in enumerate(work) if n % (JOBS // HEALTHY) == 0]
    for _ in range(600):
        if all(str(job) in arrived for job in told + quiet):
            break
        await asyncio.sleep(0.1)
    ended = {
        str(row["id"]): row["at"]
        for row in await load.sql.fetch(
            "SELECT id, extract(epoch FROM completed_at)::float8 AS at FROM llm_workflow_jobs WHERE webhook_url = $1",
            healthy,
        )
    }
    late = [1000 * (arrived[str(job)] - ended[str(job)]) for job in quiet if str(job) in arrived]
    busy = [1000 * (arrived[str(job)] - ended[str(job)]) for job in told if str(job) in arrived]
    print(
        f"{name:24} held={held:3} most={hanging.most:3} jobs/s={JOBS / float(seconds):4.0f} worker CPU {1000 * cpu_s / JOBS:.2f} ms/job  healthy webhook after the job's end:"
        f" idle median {statistics.median(late):4.0f} ms, worst {max(late):5.0f} ms ({len(late)} of {len(quiet)});"
        f" under load median {statistics.median(busy):4.0f} ms, worst {max(busy):5.0f} ms ({len(busy)} of {len(told)})",
        flush=True,
    )


async def main(servers: Servers) -> None:
    hosts = [f"127.1.{n // 250}.{n % 250 + 1}" for n in range(HANGING)]
    arrived: dict[str, float] = {}

    async def receive(request: web.Request) -> web.Response:
        arrived[str(json.loads(await request.read())["job_id"])] = time.time()
        return web.Response()

    application = web.Application()
    application.router.add_post("/", receive)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    healthy = f"http://localhost:{runner.addresses[0][1]}/"
    hanging = Hanging()
    port = await hanging.start(["127.0.0.1", *hosts])
    environment = {
        "DATABASE_URL": servers.database_url,
        "REDIS_URL": servers.redis_url,
        "LLM_SERVICE_API_SECRET": "0123456789abcdef",
        "LLM_SERVICE_MODEL": "offline",
        "LLM_SERVICE_WEBHOOK_ALLOWED_HOSTS": ",".join(["127.0.0.1", "localhost", *hosts]),
        "LOG_LEVEL": "ERROR",
        **{name: value for name, value in os.environ.items() if name == "LLM_SERVICE_WEBHOOK_CONCURRENCY"},
    }
    settings = load_settings(environment)
    worker = subprocess.Popen(
        [Path(sys.executable).parent / "llm-service", "worker"], env={**os.environ, **environment}
    )
    database = Database(settings.database_url, API_LIMITS, name="bench")
    queue = JobQueue(connect(settings.redis_url), head_start_s=30)
    sql = await asyncpg.connect(servers.database_url)
    load = Load(database, queue, sql)
    try:
        for turn in range(int(os.environ.get("TURNS", "2"))):
            print(f"turn {turn + 1}, {HANGING} hanging deliveries, {JOBS} jobs")
            await measure(load, worker.pid, "none", hanging, [], healthy, arrived)
            await measure(
                load,
                worker.pid,
                "to one host",
                hanging,
                [f"http://127.0.0.1:{port}/"] * HANGING,
                healthy,
                arrived,
            )
            await measure(load, worker.pid, "none", hanging, [], healthy, arrived)
            await measure(
                load,
                worker.pid,
                "to as many hosts",
                hanging,
                [f"http://{h}:{port}/" for h in hosts],
                healthy,
                arrived,
            )
    finally:
        worker.terminate()
        worker.wait(60)
        await sql.close()
        await queue.close()
        await database.close()
        await runner.cleanup()


if __name__ == "__main__":
    state_directory = Path(tempfile.mkdtemp(prefix="llm-bench-"))
    state_directory.chmod(0o755)
    started = start_servers(state_directory, throwaway=True)
    try:
        upgrade(started.database_url)
        asyncio.run(main(started))
    finally:
        started.stop()
