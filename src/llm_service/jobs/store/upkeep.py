"""What the reconciler asks for, and what health is made of."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import NamedTuple

import sqlalchemy as sa

from llm_service.db import Database
from llm_service.jobs.store.leases import Hint

RECONCILER_LOCK = 0x6C6C6D72
KEEP_KEYS = "48 hours"
ALIVE_S = 15.0
"""A worker that has not beaten for so long is not counted as alive."""


@asynccontextmanager
async def only_reconciler(database: Database) -> AsyncIterator[bool]:
    """Whether this process is the one that reconciles now; the lock goes with the transaction, or with us."""
    async with database.transaction() as connection:
        lock = sa.select(sa.func.pg_try_advisory_xact_lock(RECONCILER_LOCK))
        yield (await connection.execute(lock)).scalar_one()


_DUE = sa.text("""
UPDATE llm_workflow_jobs j SET hinted_at = now()
  FROM (SELECT id FROM llm_workflow_jobs
         WHERE status = 'pending' AND run_after <= now()
           AND coalesce(hinted_at, '-infinity') < now() - make_interval(secs => :unseen)
         ORDER BY run_after LIMIT 1000 FOR UPDATE SKIP LOCKED) AS due
 WHERE j.id = due.id
RETURNING j.id, j.claims, j.workflow_name, j.priority, coalesce(j.queued_at, j.created_at)
""")


async def due(database: Database, *, unseen_s: float) -> list[Hint]:
    """Pending jobs that Redis was last told about a while ago: it may have lost them."""
    async with database.statement() as connection:
        return [Hint(*row) for row in await connection.execute(_DUE, {"unseen": unseen_s})]


_FORGET = (
    sa.text(
        f"DELETE FROM llm_idempotency_keys WHERE created_at < now() - interval '{KEEP_KEYS}'"  # noqa: S608
    ),
    sa.text("DELETE FROM llm_workers WHERE seen_at < now() - interval '1 day'"),
)


async def forget(database: Database) -> None:
    """Drop idempotency keys and workers that are long past."""
    async with database.transaction() as connection:
        for statement in _FORGET:
            await connection.execute(statement)


async def sign_off(database: Database, worker: str) -> None:
    """A worker leaves: it is no longer counted."""
    async with database.statement() as connection:
        await connection.execute(sa.text("DELETE FROM llm_workers WHERE name = :name"), {"name": worker})


class Vitals(NamedTuple):
    """The state of the queue as the database has it. `oldest_wait_s` is None when nothing waits."""

    now: datetime
    workers: int
    pending: int
    processing: int
    oldest_wait_s: float | None


_VITALS = sa.text(f"""
SELECT now(),
       (SELECT count(*) FROM llm_workers WHERE seen_at > now() - interval '{ALIVE_S} s'),
       count(*) FILTER (WHERE status = 'pending'), count(*) FILTER (WHERE status = 'processing'),
       CAST(extract(epoch FROM now() - min(run_after) FILTER (WHERE status = 'pending' AND run_after <= now()))
            AS double precision)
  FROM llm_workflow_jobs WHERE status IN ('pending', 'processing')
""")  # noqa: S608 - a constant


async def vitals(database: Database) -> Vitals:
    async with database.statement() as connection:
        return Vitals(*(await connection.execute(_VITALS)).one())


async def schema_version(database: Database) -> str | None:
    """The migration that the database is at; None when it was never migrated."""
    async with database.statement() as connection:
        exists = (await connection.execute(sa.text("SELECT to_regclass('alembic_version')"))).scalar_one()
        if exists is None:
            return None
        version = await connection.execute(sa.text("SELECT version_num FROM alembic_version"))
        return version.scalar_one_or_none()
