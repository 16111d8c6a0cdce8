"""Real PostgreSQL and Redis for every test that asks: started once, a database of its own for each runner.

TEST_DATABASE_URL and TEST_REDIS_URL use servers that are already there. Never DATABASE_URL and REDIS_URL:
tests empty and drop what they are given.
"""

import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import asyncpg
import httpx
import hypothesis
import pytest
import redis as sync_redis
from sqlalchemy.engine import make_url
from tests.fakes.model_server import ModelServer
from tests.fakes.receiver import Receiver
from tests.in_process import serving

from llm_service.admin.model import Base
from llm_service.db import API_LIMITS, Database
from llm_service.devstack import Servers, start_servers
from llm_service.jobs.queue import JobQueue, connect
from llm_service.migrations import upgrade
from llm_service.settings import Settings, load_settings

SECRET = "test-secret-0123456789"
AUTH = {"X-API-Secret": SECRET}
TEMPLATE = "llm_test_template"
SERVERS = pytest.StashKey[Servers]()

# A busy machine is no failure; a test that does not end is stopped by its timeout.
hypothesis.settings.register_profile("patient", deadline=None)
hypothesis.settings.load_profile("patient")

# Their tools are installed by `make test-browser` alone.
collect_ignore = ["browser"] if find_spec("playwright") is None else []


def pytest_configure(config: pytest.Config) -> None:
    """Start the servers before xdist starts its runners: those inherit the URLs."""
    if hasattr(config, "workerinput") or config.option.collectonly or "TEST_DATABASE_URL" in os.environ:
        return
    state = Path(tempfile.mkdtemp(prefix="llm-test-"))
    state.chmod(0o755)
    servers = start_servers(state, throwaway=True)
    config.stash[SERVERS] = servers
    os.environ["TEST_DATABASE_URL"] = servers.database_url
    os.environ["TEST_REDIS_URL"] = servers.redis_url
    make_template(servers.database_url)


def pytest_unconfigure(config: pytest.Config) -> None:
    if (servers := config.stash.get(SERVERS, None)) is not None:
        servers.stop()
        del os.environ["TEST_DATABASE_URL"], os.environ["TEST_REDIS_URL"]


def with_name(url: str, name: str) -> str:
    return make_url(url).set(database=name).render_as_string(hide_password=False)


def make_template(server_url: str) -> None:
    """The schema as alembic makes it, once; every database of a test is a copy."""
    before = os.environ.get("DATABASE_URL")
    run_sql(server_url, f"CREATE DATABASE {TEMPLATE}")
    upgrade(with_name(server_url, TEMPLATE))
    if before is None:
        os.environ.pop("DATABASE_URL", None)
    else:
        os.environ["DATABASE_URL"] = before


def run_sql(server_url: str, *statements: str) -> None:
    import asyncio

    async def execute() -> None:
        connection = await asyncpg.connect(server_url)
        try:
            for statement in statements:
                await connection.execute(statement)
        finally:
            await connection.close()

    asyncio.run(execute())


@pytest.fixture(scope="session")
def server_url() -> str:
    return os.environ["TEST_DATABASE_URL"]


@pytest.fixture(scope="session")
def runner_number(worker_id: str) -> int:
    return 0 if worker_id == "master" else int(worker_id.removeprefix("gw")) + 1


@pytest.fixture(scope="session")
def shared_database_url(server_url: str, runner_number: int) -> Iterator[str]:
    name = f"llm_test_{runner_number}"
    run_sql(server_url, f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}")
    yield with_name(server_url, name)
    run_sql(server_url, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


@pytest.fixture
async def database_url(shared_database_url: str) -> str:
    """This runner's database, emptied."""
    connection = await asyncpg.connect(shared_database_url)
    tables = ", ".join(table.name for table in Base.metadata.sorted_tables)
    await connection.execute(f"TRUNCATE {tables}")
    await connection.close()
    return shared_database_url


@pytest.fixture
async def empty_database_url(server_url: str, runner_number: int) -> AsyncIterator[str]:
    """A database of this test alone, without a schema."""
    name = f"llm_test_empty_{runner_number}"
    connection = await asyncpg.connect(server_url)
    await connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
    await connection.execute(f"CREATE DATABASE {name}")
    yield with_name(server_url, name)
    await connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
    await connection.close()


@pytest.fixture
def redis_url(runner_number: int) -> str:
    """This runner's logical Redis database, emptied."""
    base = os.environ["TEST_REDIS_URL"].split("?")[0]
    url = (
        f"{base}?db={runner_number}"
        if base.startswith("unix:")
        else f"{base.rsplit('/', 1)[0]}/{runner_number}"
    )
    with sync_redis.Redis.from_url(url) as client:
        client.flushdb()
    return url


@pytest.fixture
def environment(database_url: str, redis_url: str) -> dict[str, str]:
    """The least that the service needs."""
    return {
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "LLM_SERVICE_API_SECRET": SECRET,
        "LLM_SERVICE_MODEL": "offline",
        "LLM_SERVICE_WEBHOOK_ALLOWED_HOSTS": "127.0.0.1,localhost",
        "LLM_SERVICE_LOG_FORMAT": "json",
    }


@pytest.fixture
def settings(environment: dict[str, str]) -> Settings:
    return load_settings(environment)


@pytest.fixture
async def database(settings: Settings) -> AsyncIterator[Database]:
    opened = Database(settings.database_url, API_LIMITS, name="test")
    yield opened
    await opened.close()


@pytest.fixture
async def queue(settings: Settings) -> AsyncIterator[JobQueue]:
    opened = JobQueue(connect(settings.redis_url), head_start_s=settings.priority_head_start)
    yield opened
    await opened.close()


@pytest.fixture
async def client(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    """The app in process, without the secret: send AUTH."""
    async with serving(settings) as opened:
        yield opened


@pytest.fixture
async def sql(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection beside the service's, to look and to arrange."""
    connection = await asyncpg.connect(database_url)
    yield connection
    with suppress(OSError):
        await connection.close()


@pytest.fixture
async def model_server() -> AsyncIterator[ModelServer]:
    async with ModelServer() as server:
        yield server


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with Receiver() as opened:
        yield opened
