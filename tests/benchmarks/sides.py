"""The two sides that are compared: ours and the peer, each with its database, its Redis, its API and worker."""

import sys
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import msgspec
import redis.asyncio as aioredis
from tests.benchmarks.processes import ROOT, Process, free_port

from llm_service.devstack import Servers

SECRET = "0123456789abcdef"
ADMIN_PASSWORD = "an admin password of benchmarks"
BIN = Path(sys.executable).parent
PEER_BIN = ROOT / ".venv" / "peer" / "bin"
PEER = Path(__file__).parent / "peer"
# Flags of uvicorn as `llm-service api` sets them, so that nothing but the application differs.
UVICORN = (
    "--host 127.0.0.1 --loop uvloop --http httptools --no-access-log --log-level warning --no-server-header"
)


class Side(msgspec.Struct, frozen=True, kw_only=True):
    """`workers` are the ways to start a worker, by what they are good at."""

    name: str
    database_url: str
    redis_url: str
    env: dict[str, str]
    api: Sequence[str]
    workers: dict[str, Sequence[str]]
    cwd: Path
    folder: Path
    slots: int
    """Jobs in flight in one worker process when a model takes its time."""

    def start_api(self) -> tuple[Process, int]:
        port = free_port()
        argv = [word.format(port=port) for word in self.api]
        env = {**self.env, "PORT": str(port), "OPENAI_BASE_URL": "http://127.0.0.1:9/v1"}
        return Process(argv, env, self.folder / f"{self.name}-api.log", cwd=self.cwd, port=port), port

    def start_worker(self, kind: str, model_url: str) -> Process:
        env = {**self.env, "OPENAI_BASE_URL": model_url}
        return Process(self.workers[kind], env, self.folder / f"{self.name}-worker.log", cwd=self.cwd)

    async def connect(self) -> asyncpg.Connection:
        return await asyncpg.connect(self.database_url)

    async def empty(self) -> None:
        """No job and no hint is left."""
        sql = await self.connect()
        await sql.execute("TRUNCATE llm_workflow_jobs CASCADE")
        await sql.close()
        client = aioredis.Redis.from_url(_for_redis_py(self.redis_url))
        await client.flushdb()
        await client.aclose()


def _for_redis_py(url: str) -> str:
    return url.replace("redis+socket://", "unix://").replace("virtual_host=", "db=")


def ours(servers: Servers, folder: Path, slots: int) -> Side:
    env = {
        "DATABASE_URL": servers.database_url,
        "REDIS_URL": servers.redis_url,
        "LLM_SERVICE_API_SECRET": SECRET,
        "LLM_SERVICE_ADMIN_PASSWORD": ADMIN_PASSWORD,
        "LLM_SERVICE_MODEL": "openai:fake",
        "OPENAI_API_KEY": "a key of nobody",
        "LLM_SERVICE_WEBHOOK_ALLOWED_HOSTS": "127.0.0.1",
        "LLM_SERVICE_WORKER_CONCURRENCY": str(slots),
        "LOG_LEVEL": "WARNING",
    }
    worker = [str(BIN / "llm-service"), "worker"]
    return Side(
        name="ours",
        database_url=servers.database_url,
        redis_url=servers.redis_url,
        env=env,
        api=[str(BIN / "llm-service"), "api"],
        workers={"quick": worker, "slow": worker},
        cwd=ROOT,
        folder=folder,
        slots=slots,
    )


async def peer(servers: Servers, folder: Path, slots: int) -> Side:
    """The peer has a database and a Redis database of its own on the same servers."""
    sql = await asyncpg.connect(servers.database_url)
    await sql.execute("CREATE DATABASE peer")
    await sql.close()
    database_url = servers.database_url.replace("/llm_service?", "/peer?")
    redis_url = f"redis+socket://{urlsplit(servers.redis_url).path}?virtual_host=1"
    env = {
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "API_SECRET": SECRET,
        "OPENAI_API_KEY": "a key of nobody",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    python = str(PEER_BIN / "python")
    celery = [python, "-m", "celery", "-A", "tasks", "worker", "--loglevel", "WARNING"]
    return Side(
        name="peer",
        database_url=database_url,
        redis_url=redis_url,
        env=env,
        api=[python, "-m", "uvicorn", "app:app", "--port", "{port}", *UVICORN.split()],
        workers={
            "quick": [*celery, "--concurrency", "2"],
            "slow": [*celery, "--pool", "threads", "--concurrency", str(slots)],
        },
        cwd=PEER,
        folder=folder,
        slots=slots,
    )


def bare(folder: Path) -> tuple[Process, int]:
    port = free_port()
    argv = [str(BIN / "python"), "-m", "uvicorn", "tests.benchmarks.bare:app", "--port", str(port)]
    return Process([*argv, *UVICORN.split()], {}, folder / "bare.log", port=port), port
