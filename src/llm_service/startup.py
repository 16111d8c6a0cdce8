"""What a process looks at when it starts: settings of PostgreSQL and Redis under which the promise does not hold.

It warns and goes on: the servers may be away for now, and an operator may know better.
"""

import sqlalchemy as sa

from llm_service.db import Database
from llm_service.errors import ServiceUnavailable
from llm_service.jobs.model import SCHEMA_VERSION
from llm_service.jobs.queue import REDIS_ERRORS, JobQueue
from llm_service.jobs.store import upkeep
from llm_service.logs import get_logger

log = get_logger(__name__)

KEEPS_ALL = "noeviction"


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
    except ServiceUnavailable:
        return ["PostgreSQL is away; requests are answered with 503 until it is back."]
    warnings = []
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
    except REDIS_ERRORS:
        # Away, or a managed server that shows no settings: nothing to say.
        return []
    if policy == KEEPS_ALL:
        return []
    warning = (
        f"Redis evicts keys when it is full (maxmemory-policy {policy}): hints are lost and jobs wait for the "
        f"reconciler. Set maxmemory-policy {KEEPS_ALL}."
    )
    return [warning]
