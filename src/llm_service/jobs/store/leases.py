"""Claims, heartbeats and endings: every write of a worker names its lease token, and changes nothing without it."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

import sqlalchemy as sa

from llm_service import failpoints
from llm_service.db import Database
from llm_service.jobs.model import AttemptOutcome, JobStatus, WorkflowJob

FENCE = failpoints.fence("j.lease_token = :token AND j.status = 'processing'")
"""What makes a holder's write count: the lease is still its own."""


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


class Ending(NamedTuple):
    """A job that has just ended; `has_webhook` when a delivery row was written with it."""

    job_id: UUID
    status: JobStatus
    has_webhook: bool


_CLAIM = sa.text("""
WITH claimed AS (
    UPDATE llm_workflow_jobs
       SET status = 'processing', attempt = attempt + 1, claims = claims + 1, worker = :worker,
           lease_token = gen_random_uuid(), lease_expires_at = now() + make_interval(secs => :lease),
           started_at = coalesce(started_at, now()), updated_at = now()
     WHERE id = :job_id AND status = 'pending' AND run_after <= now() AND attempt < max_attempts
       AND workflow_name = ANY(CAST(:known AS text[]))
    RETURNING id, lease_token, claims, attempt, workflow_name, priority, CAST(input_data AS text) AS input_json,
              debug_mode, request_id, coalesce(queued_at, created_at) AS queued_at, run_after
), noted AS (
    INSERT INTO llm_job_attempts (job_id, claim, worker) SELECT id, claims, :worker FROM claimed
)
SELECT id, lease_token, claims, attempt, workflow_name, priority, input_json, debug_mode, request_id, queued_at,
       CAST(extract(epoch FROM now() - greatest(queued_at, run_after)) AS double precision)
  FROM claimed
""")


async def claim(
    database: Database, job_id: UUID, *, worker: str, lease_s: float, known: Sequence[str]
) -> Claim | None:
    """Take the lease of a pending job. None when it is not to be had: taken, finished, not due, unknown here."""
    values = {"job_id": job_id, "worker": worker, "lease": lease_s, "known": list(known)}
    async with database.statement() as connection:
        row = (await connection.execute(_CLAIM, values)).one_or_none()
    return Claim(*row) if row is not None else None


_BEAT = sa.text("""
WITH held AS (
    UPDATE llm_workflow_jobs j
       SET lease_expires_at = now() + make_interval(secs => :lease)
      FROM unnest(CAST(:ids AS uuid[]), CAST(:tokens AS uuid[])) AS mine (id, token)
     WHERE j.id = mine.id AND j.lease_token = mine.token AND j.status = 'processing'
    RETURNING j.lease_token
), seen AS (
    INSERT INTO llm_workers (name, running, concurrency) VALUES (:worker, :running, :concurrency)
    ON CONFLICT (name) DO UPDATE
       SET seen_at = now(), running = excluded.running, concurrency = excluded.concurrency
)
SELECT lease_token FROM held
""")


async def beat(
    database: Database, held: Sequence[tuple[UUID, UUID]], *, worker: str, lease_s: float, concurrency: int
) -> set[UUID]:
    """Move the leases of (job id, token) pairs on. A token that does not come back is no longer ours."""
    values = {
        "ids": [job_id for job_id, _ in held],
        "tokens": [token for _, token in held],
        "lease": lease_s,
        "worker": worker,
        "running": len(held),
        "concurrency": concurrency,
    }
    async with database.statement() as connection:
        return set((await connection.execute(_BEAT, values)).scalars())


_HELD = sa.text("""
SELECT j.lease_token FROM unnest(CAST(:ids AS uuid[]), CAST(:tokens AS uuid[])) AS mine (id, token)
  JOIN llm_workflow_jobs j ON j.id = mine.id AND j.lease_token = mine.token AND j.status = 'processing'
""")


async def still_held(database: Database, held: Sequence[tuple[UUID, UUID]]) -> set[UUID]:
    """Those of (job id, token) pairs that are still ours; a cancelled job's is not. Writes nothing."""
    values = {"ids": [job_id for job_id, _ in held], "tokens": [token for _, token in held]}
    async with database.statement() as connection:
        return set((await connection.execute(_HELD, values)).scalars())


# What every ending has in common, given the rows that end as `ended`. The answers of the ledger go with it
# unless the job keeps them for debugging; a call still under way has lost its answer.
_USED = """
       total_tokens = (SELECT sum(coalesce(input_tokens, 0) + coalesce(output_tokens, 0)) FROM llm_calls c
                        WHERE c.job_id = j.id AND c.status = 'succeeded'
                          AND coalesce(input_tokens, output_tokens) IS NOT NULL),
       cost_usd = (SELECT CASE WHEN count(*) = count(c.cost_usd) THEN sum(c.cost_usd) END FROM llm_calls c
                    WHERE c.job_id = j.id AND c.status = 'succeeded'),
       webhook_state = CASE WHEN webhook_url IS NULL THEN 'none' ELSE 'pending' END,
       duration_ms = CASE WHEN started_at IS NOT NULL
                          THEN least(greatest(extract(epoch FROM now() - started_at) * 1000, 0), 2147483647) END,
       completed_at = now(), updated_at = now(), lease_token = NULL, lease_expires_at = NULL
"""
_TAIL = """
), closed AS (
    UPDATE llm_job_attempts a
       SET ended_at = now(), outcome = CAST(:outcome AS varchar), error_code = ended.error_code
      FROM ended
     WHERE a.job_id = ended.id AND a.claim = ended.claims AND a.outcome = 'running'
), swept AS (
    UPDATE llm_calls c
       SET status = CASE WHEN c.status = 'running' THEN 'lost' ELSE c.status END,
           prompt = CASE WHEN ended.debug_mode THEN c.prompt END,
           answer = CASE WHEN ended.debug_mode THEN c.answer END
      FROM ended
     WHERE c.job_id = ended.id AND (c.status = 'running' OR NOT ended.debug_mode)
), told AS (
    INSERT INTO llm_webhook_deliveries (job_id, webhook_id, event, next_attempt_at, hinted_at)
    SELECT id, 'msg_' || replace(CAST(id AS text), '-', ''), 'workflow.' || status, now(), now()
      FROM ended WHERE webhook_url IS NOT NULL
)
SELECT id, status, webhook_url IS NOT NULL FROM ended
"""
_ENDED_COLUMNS = "j.id, j.status, j.claims, j.error_code, j.debug_mode, j.webhook_url"

_FINISH = sa.text(f"""
WITH ended AS (
    UPDATE llm_workflow_jobs j
       SET status = CAST(:status AS varchar), result = CAST(CAST(:result AS text) AS jsonb),
           error_code = :error_code, error_message = :error_message, {_USED}
     WHERE j.id = :job_id AND {FENCE}
    RETURNING {_ENDED_COLUMNS}
{_TAIL}""")  # noqa: S608 - put together from the constants above


async def finish(
    database: Database,
    held: Claim,
    *,
    status: JobStatus,
    result_json: str | None = None,
    error_code: str | None = None,
    error_message: str | None = None,
) -> Ending | None:
    """End a job that we hold. None when the lease was lost: nothing was written, the result is to be dropped."""
    values = {
        "job_id": held.job_id,
        "token": held.token,
        "status": status.value,
        "outcome": AttemptOutcome(status.value).value,
        "result": result_json,
        "error_code": error_code,
        "error_message": error_message,
    }
    async with database.statement() as connection:
        row = (await connection.execute(_FINISH, values)).one_or_none()
    return Ending(row[0], JobStatus(row[1]), row[2]) if row is not None else None


_CANCEL = sa.text(f"""
WITH ended AS (
    UPDATE llm_workflow_jobs j SET status = 'cancelled', {_USED}
     WHERE id = :job_id AND status IN ('pending', 'processing')
    RETURNING {_ENDED_COLUMNS}
{_TAIL}""")  # noqa: S608 - put together from the constants above


async def cancel(database: Database, job_id: UUID) -> Ending | None:
    """End an unfinished job as cancelled, whoever holds it. None when it was finished, or never was."""
    async with database.statement() as connection:
        values = {"job_id": job_id, "outcome": AttemptOutcome.CANCELLED.value}
        row = (await connection.execute(_CANCEL, values)).one_or_none()
    return Ending(row[0], JobStatus(row[1]), row[2]) if row is not None else None


async def status_of(database: Database, job_id: UUID) -> str | None:
    """The state of a job; None where there is no such job."""
    async with database.statement() as connection:
        query = sa.select(WorkflowJob.status).where(WorkflowJob.id == job_id)
        return (await connection.execute(query)).scalar_one_or_none()


# Back to pending, with what the lost or given-back attempt leaves behind.
_GIVEN_BACK = """
), closed AS (
    UPDATE llm_job_attempts a SET ended_at = now(), outcome = CAST(:outcome AS varchar)
      FROM freed WHERE a.job_id = freed.id AND a.claim = freed.claims AND a.outcome = 'running'
), swept AS (
    UPDATE llm_calls c SET status = 'lost'
      FROM freed WHERE c.job_id = freed.id AND c.status = 'running'
)
SELECT id, claims, workflow_name, priority, queued_at FROM freed
"""
_FREED_COLUMNS = (
    "j.id, j.claims, j.workflow_name, j.priority, coalesce(j.queued_at, j.created_at) AS queued_at"
)

_RELEASE = sa.text(f"""
WITH freed AS (
    UPDATE llm_workflow_jobs j
       SET status = 'pending', attempt = attempt - 1, lease_token = NULL, lease_expires_at = NULL,
           run_after = now(), hinted_at = now(), updated_at = now()
     WHERE j.id = :job_id AND {FENCE}
    RETURNING {_FREED_COLUMNS}
{_GIVEN_BACK}""")  # noqa: S608 - put together from the constants above


async def release(database: Database, held: Claim) -> Hint | None:
    """Give a job back unfinished, its attempt refunded. None when the lease was lost already."""
    async with database.statement() as connection:
        values = {"job_id": held.job_id, "token": held.token, "outcome": AttemptOutcome.RELEASED.value}
        row = (await connection.execute(_RELEASE, values)).one_or_none()
    return Hint(*row) if row is not None else None


# After a restart of PostgreSQL every lease looks expired: owners get one lease time to beat first.
_DEAD = """
    SELECT id FROM llm_workflow_jobs
     WHERE status = 'processing' AND coalesce(lease_expires_at, '-infinity') < now()
       AND pg_postmaster_start_time() < now() - make_interval(secs => :lease)
       AND attempt {comparison} max_attempts
     LIMIT 500 FOR UPDATE SKIP LOCKED
"""

_REQUEUE = sa.text(f"""
WITH dead AS ({_DEAD.format(comparison="<")}
), freed AS (
    UPDATE llm_workflow_jobs j
       SET status = 'pending', lease_token = NULL, lease_expires_at = NULL,
           run_after = now(), hinted_at = now(), updated_at = now()
      FROM dead WHERE j.id = dead.id
    RETURNING {_FREED_COLUMNS}
{_GIVEN_BACK}""")  # noqa: S608 - put together from the constants above

_FAIL = sa.text(f"""
WITH dead AS ({_DEAD.format(comparison=">=")}
), ended AS (
    UPDATE llm_workflow_jobs j
       SET status = 'failed', error_code = 'WorkerLost',
           error_message = 'The worker running this job was lost ' || j.attempt
                           || CASE WHEN j.attempt = 1 THEN ' time' ELSE ' times' END
                           || ', as often as its attempts allow.', {_USED}
      FROM dead WHERE j.id = dead.id
    RETURNING {_ENDED_COLUMNS}
{_TAIL}""")  # noqa: S608 - put together from the constants above


async def reap(database: Database, *, lease_s: float) -> tuple[list[Hint], list[Ending]]:
    """Take expired leases back: to pending while attempts are left, else to failed (`WorkerLost`)."""
    values = {"lease": lease_s, "outcome": AttemptOutcome.LOST.value}
    async with database.transaction() as connection:
        freed = [Hint(*row) for row in await connection.execute(_REQUEUE, values)]
        ended = [Ending(row[0], JobStatus(row[1]), row[2]) for row in await connection.execute(_FAIL, values)]
    return freed, ended
