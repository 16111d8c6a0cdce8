"""Claims, heartbeats and releases: every write of a worker names its lease token, and changes nothing without it."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

import sqlalchemy as sa

from llm_service import failpoints
from llm_service.db import Database
from llm_service.jobs.model import AttemptOutcome, WorkflowJob
from llm_service.jobs.store.arrays import by_column, unnested


def fenced(token: str) -> str:
    """What makes a holder's write of a job `j` count: the lease with its token is still its own."""
    return failpoints.fence(f"j.lease_token = {token} AND j.status = 'processing'")


class Claim(NamedTuple):
    """A lease on one job, and what is needed to run it."""

    job_id: UUID
    token: UUID
    claim: int
    attempt: int
    workflow_name: str
    priority: int
    input_json: str
    debug_mode: bool
    request_id: str | None
    queued_at: datetime
    waited_s: float


class Hint(NamedTuple):
    """What Redis has to be told about a pending job. `claims` makes the name new after each claim.

    `workflow_name` lets a worker that does not know it leave the hint to those that do.
    """

    job_id: UUID
    claims: int
    workflow_name: str
    priority: int
    queued_at: datetime


# Rows are always locked in the order of their ids, or two statements for many jobs could wait for each other.
_CLAIM = sa.text("""
WITH pending AS (
    SELECT id FROM llm_workflow_jobs
     WHERE id = ANY(CAST(:job_ids AS uuid[])) AND status = 'pending' AND run_after <= now() AND attempt < max_attempts
       AND workflow_name = ANY(CAST(:known AS text[]))
     ORDER BY id FOR NO KEY UPDATE
), claimed AS (
    UPDATE llm_workflow_jobs j
       SET status = 'processing', attempt = attempt + 1, claims = claims + 1, worker = CAST(:worker AS text),
           lease_token = gen_random_uuid(), lease_expires_at = now() + make_interval(secs => :lease),
           started_at = coalesce(started_at, now()), updated_at = now()
      FROM pending WHERE j.id = pending.id
    RETURNING j.id, lease_token, claims, attempt, workflow_name, priority, CAST(input_data AS text) AS input_json,
              debug_mode, request_id, coalesce(queued_at, created_at) AS queued_at, run_after
), noted AS (
    INSERT INTO llm_job_attempts (job_id, claim, worker) SELECT id, claims, CAST(:worker AS text) FROM claimed
)
SELECT id, lease_token, claims, attempt, workflow_name, priority, input_json, debug_mode, request_id, queued_at,
       CAST(extract(epoch FROM now() - greatest(queued_at, run_after)) AS double precision)
  FROM claimed
""")


async def claim(
    database: Database, job_ids: Sequence[UUID], *, worker: str, lease_s: float, known: Sequence[str]
) -> list[Claim | None]:
    """Take the leases of pending jobs, in their order.

    None where it is not to be had: taken, finished, not due, unknown here, or named before in the same breath.
    """
    values = {"job_ids": job_ids, "worker": worker, "lease": lease_s, "known": known}
    claims = {row["id"]: Claim(*row) for row in await database.fetch(_CLAIM, values)}
    return [claims.pop(job_id, None) for job_id in job_ids]


_TOKENS = {"ids": "uuid", "tokens": "uuid"}
_MINE = f"{unnested(_TOKENS)} AS mine (id, token)"


_BEAT = sa.text(f"""
WITH held AS (
    SELECT j.id FROM {_MINE}
      JOIN llm_workflow_jobs j ON j.id = mine.id AND j.lease_token = mine.token AND j.status = 'processing'
     ORDER BY j.id FOR NO KEY UPDATE OF j
), moved AS (
    UPDATE llm_workflow_jobs j SET lease_expires_at = now() + make_interval(secs => :lease)
      FROM held WHERE j.id = held.id
    RETURNING j.lease_token
), seen AS (
    INSERT INTO llm_workers (name, running, concurrency) VALUES (:worker, :running, :concurrency)
    ON CONFLICT (name) DO UPDATE
       SET seen_at = now(), running = excluded.running, concurrency = excluded.concurrency
)
SELECT lease_token FROM moved
""")  # noqa: S608 - put together from the constants above


async def beat(
    database: Database, held: Sequence[tuple[UUID, UUID]], *, worker: str, lease_s: float, concurrency: int
) -> set[UUID]:
    """Move the leases of (job id, token) pairs on. A token that does not come back is no longer ours."""
    values = by_column(_TOKENS, held) | {
        "worker": worker,
        "lease": lease_s,
        "running": len(held),
        "concurrency": concurrency,
    }
    return {row[0] for row in await database.fetch(_BEAT, values)}


_HELD = sa.text(f"""
SELECT j.lease_token FROM {_MINE}
  JOIN llm_workflow_jobs j ON j.id = mine.id AND j.lease_token = mine.token AND j.status = 'processing'
""")  # noqa: S608 - put together from the constants above


async def still_held(database: Database, held: Sequence[tuple[UUID, UUID]]) -> set[UUID]:
    """Those of (job id, token) pairs that are still ours; a cancelled job's is not. Writes nothing."""
    return {row[0] for row in await database.fetch(_HELD, by_column(_TOKENS, held))}


async def status_of(database: Database, job_id: UUID) -> str | None:
    """The state of a job; None where there is no such job."""
    async with database.statement() as connection:
        query = sa.select(WorkflowJob.status).where(WorkflowJob.id == job_id)
        return (await connection.execute(query)).scalar_one_or_none()


# Back to pending, with what the lost or given-back attempt leaves behind.
GIVEN_BACK = """
), closed AS (
    UPDATE llm_job_attempts a SET ended_at = now(), outcome = CAST(:outcome AS varchar)
      FROM freed WHERE a.job_id = freed.id AND a.claim = freed.claims AND a.outcome = 'running'
), swept AS (
    UPDATE llm_calls c SET status = 'lost'
      FROM freed WHERE c.job_id = freed.id AND c.status = 'running'
)
SELECT id, claims, workflow_name, priority, queued_at FROM freed
"""
FREED_COLUMNS = (
    "j.id, j.claims, j.workflow_name, j.priority, coalesce(j.queued_at, j.created_at) AS queued_at"
)

_RELEASE = sa.text(f"""
WITH freed AS (
    UPDATE llm_workflow_jobs j
       SET status = 'pending', attempt = attempt - 1, lease_token = NULL, lease_expires_at = NULL,
           run_after = now(), hinted_at = now(), updated_at = now()
     WHERE j.id = :job_id AND {fenced(":token")}
    RETURNING {FREED_COLUMNS}
{GIVEN_BACK}""")  # noqa: S608 - put together from the constants above


async def release(database: Database, held: Claim) -> Hint | None:
    """Give a job back unfinished, its attempt refunded. None when the lease was lost already."""
    async with database.statement() as connection:
        values = {"job_id": held.job_id, "token": held.token, "outcome": AttemptOutcome.RELEASED.value}
        row = (await connection.execute(_RELEASE, values)).one_or_none()
    return Hint(*row) if row is not None else None
