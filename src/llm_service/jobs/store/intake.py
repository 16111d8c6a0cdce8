"""Writes a submitted job, and remembers which answer an idempotency key got."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import asyncpg
import msgspec
import sqlalchemy as sa

from llm_service.db import Database, once_more
from llm_service.errors import InvalidInputData
from llm_service.jobs.model import WorkflowJob
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
_WRITTEN = f"""
INSERT INTO llm_workflow_jobs ({_PLAIN}, input_data, queued_at, run_after, hinted_at)
SELECT {_PLAIN}, CAST(input_json AS jsonb), now() + make_interval(secs => delay_s),
       now() + make_interval(secs => delay_s), CASE WHEN delay_s = 0 THEN now() END
  FROM {unnested(_TYPES)} AS new ({", ".join(_TYPES)})
{{guard}}
ON CONFLICT (id) DO NOTHING
RETURNING id, created_at
"""  # noqa: S608 - put together from constants
_INSERT = sa.text(_WRITTEN.format(guard=""))
# One statement: on a slow network each further round trip is one too many for who waits.
_INSERT_ONCE = sa.text(f"""
WITH claimed AS (
    INSERT INTO llm_idempotency_keys (key, body_hash, job_id, workflow_name)
    VALUES (:key, CAST(:body_hash AS bytea), CAST(:job_id AS uuid), :job_workflow)
    ON CONFLICT DO NOTHING RETURNING job_id
), written AS ({_WRITTEN.format(guard="WHERE EXISTS (SELECT FROM claimed)")})
SELECT id, created_at FROM written
""")  # noqa: S608 - put together from constants
_EARLIER = sa.text(
    "SELECT job_id, workflow_name, created_at, body_hash FROM llm_idempotency_keys WHERE key = :key"
)
_THERE = sa.text("SELECT id, created_at FROM llm_workflow_jobs WHERE id = ANY(CAST(:ids AS uuid[]))")


async def add_many(database: Database, jobs: Sequence[NewJob]) -> list[Accepted]:
    """Commit new jobs in one statement: when this returns, they are durable.

    Raises `InvalidInputData`, and nothing is written, when PostgreSQL can't hold one of them.
    """
    return await once_more(lambda: _insert(database, jobs))


async def add_once(database: Database, job: NewJob, *, key: str, body_hash: bytes) -> Accepted:
    """Commit a new job unless the key was used before: then the answer is the earlier one, with its hash.

    Of many at once with one key exactly one inserts; the others wait for its commit.
    """
    accepted = await once_more(lambda: _claim_key(database, job, key, body_hash))
    # An earlier try of ours may have been committed and its answer lost: then the job is new all the same.
    return accepted._replace(body_hash=None) if accepted.job_id == job.id else accepted


async def _claim_key(database: Database, job: NewJob, key: str, body_hash: bytes) -> Accepted:
    claim = {"key": key, "body_hash": body_hash, "job_id": job.id, "job_workflow": job.workflow_name}
    with _naming_the_unstorable():
        for _, created_at in await database.fetch(_INSERT_ONCE, _columns([job]) | claim):
            return Accepted(job.id, job.workflow_name, created_at)
    [earlier] = await database.fetch(_EARLIER, {"key": key})
    return Accepted(*earlier)


async def _insert(database: Database, jobs: Sequence[NewJob]) -> list[Accepted]:
    with _naming_the_unstorable():
        written = {row[0]: row[1] for row in await database.fetch(_INSERT, _columns(jobs))}
    if missing := [job.id for job in jobs if job.id not in written]:
        written |= {row[0]: row[1] for row in await database.fetch(_THERE, {"ids": missing})}
    return [Accepted(job.id, job.workflow_name, written[job.id]) for job in jobs]


def _columns(jobs: Sequence[NewJob]) -> dict[str, list[Any]]:
    return {name: [getattr(job, name) for job in jobs] for name in _TYPES}


@contextmanager
def _naming_the_unstorable() -> Iterator[None]:
    try:
        yield
    except asyncpg.PostgresError as error:
        if (error.sqlstate or "").startswith(UNSTORABLE):
            raise InvalidInputData("holds a value that can't be stored", ["body", "input_data"]) from None
        raise


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
