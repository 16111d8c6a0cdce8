"""What a process looks at when it starts: settings of PostgreSQL and Redis under which the promise does not hold.

It warns and goes on: the servers may be away for now, and an operator may know better.
"""

from ipaddress import ip_address
from typing import Any

import sqlalchemy as sa
from redis.asyncio import ConnectionPool, SSLConnection
from redis.exceptions import AuthenticationError, InvalidResponse, ResponseError

from llm_service.absence import sqlstate_of
from llm_service.db import Database
from llm_service.errors import ServiceUnavailable
from llm_service.jobs.model import SCHEMA_VERSION
from llm_service.jobs.queue import REDIS_ERRORS, JobQueue
from llm_service.jobs.store import upkeep
from llm_service.logs import get_logger

log = get_logger(__name__)

KEEPS_ALL = "noeviction"
REFUSALS = {
    "28": "refuses user or password of DATABASE_URL",
    "3D": "has no database of the name in DATABASE_URL",
    "53": "has no connection left, no memory or no disk",
}
"""What a SQLSTATE that begins so means to an operator."""


async def look_around(database: Database, queue: JobQueue) -> list[str]:
    """Say what is wrong with the surroundings, in the log and as the list of sentences that is returned."""
    warnings = [*await _look_at_postgresql(database), *await _look_at_redis(queue)]
    for warning in warnings:
        log.warning(warning)
    return warnings


async def _look_at_postgresql(database: Database) -> list[str]:
    try:
        version = await upkeep.schema_version(database)
        async with database.statement() as connection:
            fsync = (await connection.execute(sa.text("SHOW fsync"))).scalar_one()
            commit = (await connection.execute(sa.text("SHOW synchronous_commit"))).scalar_one()
            read_only = (await connection.execute(sa.text("SHOW transaction_read_only"))).scalar_one()
    except ServiceUnavailable as error:
        state = sqlstate_of(error) or ""
        reason = next((text for start, text in REFUSALS.items() if state.startswith(start)), "is away")
        return [f"PostgreSQL {reason}; requests are answered with 503 until that has changed."]
    warnings = []
    if read_only == "on":
        warnings.append(
            "PostgreSQL takes no writes here (a replica, or default_transaction_read_only): submits are answered "
            "with 503. Let DATABASE_URL name the primary."
        )
    if version is None:
        warnings.append("The database has no schema yet: run `make migrate` (or `llm-service migrate`).")
    elif version != SCHEMA_VERSION:
        warnings.append(
            f"The database's schema is at {version}, this version of the service expects {SCHEMA_VERSION}: "
            "run `make migrate`, or start the version that fits."
        )
    if fsync != "on":
        warnings.append("PostgreSQL runs with fsync=off: an accepted job may be lost with the machine.")
    if commit == "off":
        warnings.append(
            "PostgreSQL runs with synchronous_commit=off: an accepted job may be lost in a crash."
        )
    return warnings


async def _look_at_redis(queue: JobQueue) -> list[str]:
    try:
        policy = (await queue.client.config_get("maxmemory-policy")).get("maxmemory-policy", KEEPS_ALL)
    except (AuthenticationError, InvalidResponse) as error:
        return [f"{_what_answered(error)}; jobs wait for the reconciler until that has changed."]
    except REDIS_ERRORS:
        # Away, or a managed server that shows no settings: nothing to say.
        policy = KEEPS_ALL
    warnings = [*_look_at_redis_address(queue.client.connection_pool), *await _look_at_scripts(queue)]
    if policy != KEEPS_ALL:
        warnings.append(
            f"Redis evicts keys when it is full (maxmemory-policy {policy}): hints are lost and jobs wait for the "
            f"reconciler. Set maxmemory-policy {KEEPS_ALL}."
        )
    return warnings


async def _look_at_scripts(queue: JobQueue) -> list[str]:
    try:
        asked: Any = queue.client.eval("return 1", 0)
        await asked
    except ResponseError:
        return ["Redis lets the user of REDIS_URL run no scripts: no job is started until it may use EVAL."]
    except REDIS_ERRORS:
        return []  # away: that is for others to say
    return []


def _what_answered(error: Exception) -> str:
    if isinstance(error, InvalidResponse):
        return "What answers at REDIS_URL is no Redis"
    return "Redis refuses user or password of REDIS_URL, or wants one"


def _look_at_redis_address(pool: ConnectionPool) -> list[str]:
    """Who can write to Redis decides what workers look at next, and reads who works on what."""
    host = pool.connection_kwargs.get("host")
    if host is None or host == "localhost" or _is_loopback(host):
        return []
    lacks = []
    if not pool.connection_kwargs.get("password"):
        lacks.append("a password")
    if not issubclass(pool.connection_class, SSLConnection):
        lacks.append("TLS (rediss://)")
    if not lacks:
        return []
    return [f"Redis is on another host, and REDIS_URL names it without {' and '.join(lacks)}."]


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
