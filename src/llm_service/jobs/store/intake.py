"""Writes a submitted job, and remembers which answer an idempotency key got."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import asyncpg
import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import DBAPIError

from llm_service.absence import sqlstate_of
from llm_service.db import Database, once_more
from llm_service.errors import InvalidInputData
from llm_service.jobs.model import IdempotencyKey, WorkflowJob
from llm_service.jobs.store.arrays import unnested


class NewJob(msgspec.Struct, frozen=True, kw_only=True):
    """A job as submitted. `input_json` is the caller's own JSON text; `webhook_secret` is sealed already."""

    id: UUID
    workflow_name: str
    priority: int
    input_json: str
    user_id: UUID | None = None
    username: str | None = None
    action: str | None = None
    webhook_url: str | None = None
    webhook_secret: str | None = None
    debug_mode: bool = False
    max_attempts: int = 3
    request_id: str | None = None
    retried_from: UUID | None = None
    delay_s: float = 0
    """How long it is held back, by the database's clock; the backlog counts it meanwhile."""


class Accepted(NamedTuple):
    """The job that an answer is about; `body_hash` is None for a job that was just made."""

    job_id: UUID
    workflow_name: str
    queued_at: datetime
    body_hash: bytes | None = None


UNSTORABLE = "22"
"""SQLSTATE class of values that are JSON and yet too much for PostgreSQL, such as 1e200000."""

_TYPES = {
    "id": "uuid",
    "workflow_name": "text",
    "priority": "integer",
    "input_json": "text",
    "user_id": "uuid",
    "username": "text",
    "action": "text",
    "webhook_url": "text",
    "webhook_secret": "text",
    "debug_mode": "boolean",
    "max_attempts": "smallint",
    "request_id": "text",
    "retried_from": "uuid",
    "delay_s": "double precision",
}
_PLAIN = ", ".join(name for name in _TYPES if name not in {"input_json", "delay_s"})
# Redis is told in the same breath: the reconciler looks at rows whose hint is older than a while. Of a job that is held
# back it is not: the reconciler tells of it when its time has come, and its age in the queue begins then.
# The id is ours alone: a row that is there already is this one, committed by a try whose answer was lost.
_INSERT = sa.text(f"""
INSERT INTO llm_workflow_jobs ({_PLAIN}, input_data, queued_at, run_after, hinted_at)
SELECT {_PLAIN}, CAST(input_json AS jsonb), now() + make_interval(secs => delay_s),
       now() + make_interval(secs => delay_s), CASE WHEN delay_s = 0 THEN now() END
  FROM {unnested(_TYPES)} AS new ({", ".join(_TYPES)})
ON CONFLICT (id) DO NOTHING
RETURNING id, created_at
""")  # noqa: S608 - put together from constants
_THERE = sa.text("SELECT id, created_at FROM llm_workflow_jobs WHERE id = ANY(CAST(:ids AS uuid[]))")
_CLAIM_KEY = (
    insert(IdempotencyKey)
    .values({name: sa.bindparam(name) for name in ("key", "body_hash", "job_id", "workflow_name")})
    .on_conflict_do_nothing()
    .returning(IdempotencyKey.job_id)
)


async def add_many(database: Database, jobs: Sequence[NewJob]) -> list[Accepted]:
    """Commit new jobs in one statement: when this returns, they are durable.

    Raises `InvalidInputData`, and nothing is written, when PostgreSQL can't hold one of them.
    """
    return await once_more(lambda: _insert(database.fetch, jobs))


async def add_once(database: Database, job: NewJob, *, key: str, body_hash: bytes) -> Accepted:
    """Commit a new job unless the key was used before: then the answer is the earlier one, with its hash.

    Of many at once with one key exactly one inserts; the others wait for its commit.
    """
    accepted = await once_more(lambda: _claim_key(database, job, key, body_hash))
    # An earlier try of ours may have been committed and its answer lost: then the job is new all the same.
    return accepted._replace(body_hash=None) if accepted.job_id == job.id else accepted


async def _claim_key(database: Database, job: NewJob, key: str, body_hash: bytes) -> Accepted:
    async with database.transaction() as connection:
        claimed = await connection.execute(
            _CLAIM_KEY,
            {"key": key, "body_hash": body_hash, "job_id": job.id, "workflow_name": job.workflow_name},
        )
        if claimed.first() is not None:
            [accepted] = await _insert(connection.execute, [job])
            return accepted
        earlier = sa.select(
            IdempotencyKey.job_id,
            IdempotencyKey.workflow_name,
            IdempotencyKey.created_at,
            IdempotencyKey.body_hash,
        ).where(IdempotencyKey.key == key)
        return Accepted(*(await connection.execute(earlier)).one())


async def _insert(
    execute: Callable[[sa.TextClause, dict[str, Any]], Awaitable[Iterable[Any]]], jobs: Sequence[NewJob]
) -> list[Accepted]:
    columns = {name: [getattr(job, name) for job in jobs] for name in _TYPES}
    try:
        written = {row[0]: row[1] for row in await execute(_INSERT, columns)}
    except (DBAPIError, asyncpg.PostgresError) as error:
        if (sqlstate_of(error) or "").startswith(UNSTORABLE):
            raise InvalidInputData("holds a value that can't be stored", ["body", "input_data"]) from None
        raise
    if missing := [job.id for job in jobs if job.id not in written]:
        written |= {row[0]: row[1] for row in await execute(_THERE, {"ids": missing})}
    return [Accepted(job.id, job.workflow_name, written[job.id]) for job in jobs]


_PENDING = sa.text(
    "SELECT count(*) FROM (SELECT 1 FROM llm_workflow_jobs WHERE status = 'pending' LIMIT :most) AS counted"
)


async def count_pending(database: Database, *, most: int) -> int:
    """How many jobs wait, counted up to `most`."""

    async def count() -> int:
        async with database.statement() as connection:
            return int((await connection.execute(_PENDING, {"most": most})).scalar_one())

    return await once_more(count)


_LAST_START = sa.text("""
SELECT coalesce(CAST(extract(epoch FROM max(run_after) - now()) AS double precision), 0)
  FROM llm_workflow_jobs WHERE status = 'pending' AND run_after > now()
""")


async def last_start_s(database: Database) -> float:
    """In how many seconds the last of the jobs that are held back is to start; 0 where none is."""
    async with database.statement() as connection:
        return float((await connection.execute(_LAST_START)).scalar_one())


async def get_for_retry(database: Database, job_id: UUID) -> sa.Row[Any] | None:
    """What a new run of a job needs; None where there is no such job."""
    wanted = (
        "workflow_name priority user_id username action webhook_url webhook_secret debug_mode status".split()
    )
    query: sa.Select[Any] = sa.select(
        *(getattr(WorkflowJob, name) for name in wanted),
        sa.cast(WorkflowJob.input_data, sa.Text).label("input_json"),
    ).where(WorkflowJob.id == job_id)
    async with database.statement() as connection:
        row: sa.Row[Any] | None = (await connection.execute(query)).one_or_none()
    return row
