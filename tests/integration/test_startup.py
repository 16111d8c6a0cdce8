"""What a process warns of when it starts."""

from typing import Any

import msgspec
import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory

from llm_service.db import API_LIMITS, Database
from llm_service.jobs.model import SCHEMA_VERSION
from llm_service.jobs.queue import JobQueue, connect
from llm_service.migrations import project_root
from llm_service.settings import Settings, async_database_url
from llm_service.startup import _look_at_redis_address, look_around


def test_the_models_name_the_newest_migration() -> None:
    scripts = ScriptDirectory.from_config(Config(toml_file=project_root() / "pyproject.toml"))
    assert scripts.get_current_head() == SCHEMA_VERSION


async def test_the_test_servers_fsync_is_noticed(database: Database, queue: JobQueue) -> None:
    """The throwaway PostgreSQL of the tests runs without fsync, and that is the only thing wrong with it."""
    warnings = await look_around(database, queue)
    assert [warning for warning in warnings if "fsync" not in warning] == []


async def test_a_database_without_schema_is_told_to_be_migrated(
    empty_database_url: str, queue: JobQueue
) -> None:
    database = Database(async_database_url(empty_database_url), API_LIMITS, name="test")
    assert any("make migrate" in warning for warning in await look_around(database, queue))
    await database.close()


async def test_an_evicting_redis_is_noticed(database: Database, queue: JobQueue) -> None:
    policy = (await queue.client.config_get("maxmemory-policy"))["maxmemory-policy"]
    await queue.client.config_set("maxmemory-policy", "allkeys-lru")
    try:
        assert any("allkeys-lru" in warning for warning in await look_around(database, queue))
    finally:
        await queue.client.config_set("maxmemory-policy", policy)


async def test_a_redis_that_lets_us_run_no_scripts_is_noticed(
    database: Database, queue: JobQueue, settings: Settings
) -> None:
    admin: Any = queue.client
    rules = ["on", ">hush", "allkeys", "allchannels", "+@all", "-eval"]
    await admin.execute_command("ACL", "SETUSER", "no_scripts", *rules)
    pool = connect(settings.redis_url)
    pool.connection_pool.connection_kwargs |= {"username": "no_scripts", "password": "hush"}
    limited = JobQueue(pool, head_start_s=30)
    try:
        assert any("EVAL" in warning for warning in await look_around(database, limited))
    finally:
        await limited.close()
        await admin.execute_command("ACL", "DELUSER", "no_scripts")


@pytest.mark.parametrize("away", ["database", "redis"])
async def test_servers_that_are_away_stop_no_start(settings: Settings, away: str) -> None:
    gone = msgspec.structs.replace(
        settings, database_url="postgresql+asyncpg://x@127.0.0.1:1/x", redis_url="redis://127.0.0.1:1/0"
    )
    database = Database((gone if away == "database" else settings).database_url, API_LIMITS, name="test")
    queue = JobQueue(connect((gone if away == "redis" else settings).redis_url), head_start_s=30)
    warnings = await look_around(database, queue)
    assert any("PostgreSQL is away" in warning for warning in warnings) == (away == "database")
    await database.close()
    await queue.close()


@pytest.mark.parametrize(
    ("url", "lacks"),
    [
        ("redis://redis.example:6379/0", "a password and TLS (rediss://)"),
        ("redis://:hush@redis.example:6379/0", "TLS (rediss://)"),
        ("rediss://10.0.0.7:6379/0", "a password"),
        ("rediss://:hush@redis.example:6379/0", None),
        ("redis://localhost:6379/0", None),
        ("redis://127.0.0.2:6379/0", None),
        ("redis://[::1]:6379/0", None),
        ("unix:///run/redis.sock", None),
    ],
)
def test_s53_a_redis_elsewhere_without_password_or_tls_is_noticed(url: str, lacks: str | None) -> None:
    said = _look_at_redis_address(connect(url).connection_pool)
    assert said == (
        [] if lacks is None else [f"Redis is on another host, and REDIS_URL names it without {lacks}."]
    )


async def test_s53_who_starts_against_such_a_redis_is_told(database: Database) -> None:
    queue = JobQueue(connect("redis://redis.invalid:6379/0"), head_start_s=30)
    told = await look_around(database, queue)
    await queue.close()
    assert "Redis is on another host, and REDIS_URL names it without a password and TLS (rediss://)." in told
