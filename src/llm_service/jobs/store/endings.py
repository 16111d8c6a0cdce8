"""Every way in which a job ends: finished by its holder, cancelled by anybody, given up by the reconciler."""

from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID

import msgspec
import sqlalchemy as sa

from llm_service.db import Database
from llm_service.jobs.model import AttemptOutcome, JobStatus
from llm_service.jobs.store.arrays import by_column, unnested
from llm_service.jobs.store.leases import FREED_COLUMNS, GIVEN_BACK, Claim, Hint, fenced


class Ending(NamedTuple):
    """A job that has just ended; `has_webhook` when a delivery row was written with it."""

    job_id: UUID
    status: JobStatus
    has_webhook: bool


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """How a run ended."""

    status: JobStatus
    result_json: str | None = None
    error_code: str | None = None
    error_message: str | None = None


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
       SET ended_at = now(), outcome = {outcome}, error_code = ended.error_code
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
_AS_IT_ENDED = _TAIL.format(outcome="ended.status")
_ENDED_COLUMNS = "j.id, j.status, j.claims, j.error_code, j.debug_mode, j.webhook_url"

_OUTCOMES = {
    "job_ids": "uuid",
    "tokens": "uuid",
    "statuses": "varchar",
    "results": "text",
    "error_codes": "varchar",
    "error_messages": "text",
}

_FINISH = sa.text(f"""
WITH held AS (
    SELECT j.id, mine.status, CAST(mine.result AS jsonb) AS result, mine.error_code, mine.error_message
      FROM {unnested(_OUTCOMES)} AS mine (id, token, status, result, error_code, error_message)
      JOIN llm_workflow_jobs j ON j.id = mine.id AND {fenced("mine.token")}
     ORDER BY j.id FOR NO KEY UPDATE OF j
), ended AS (
    UPDATE llm_workflow_jobs j
       SET status = held.status, result = held.result, error_code = held.error_code,
           error_message = held.error_message, {_USED}
      FROM held WHERE j.id = held.id
    RETURNING {_ENDED_COLUMNS}
{_AS_IT_ENDED}""")  # noqa: S608 - put together from the constants above


async def finish(database: Database, ended: Sequence[tuple[Claim, Outcome]]) -> list[Ending | None]:
    """End jobs that we hold, in their order.

    None where the lease was lost: nothing was written, the result is to be dropped.
    """
    rows = [
        (held.job_id, held.token, how.status.value, how.result_json, how.error_code, how.error_message)
        for held, how in ended
    ]
    found = await database.fetch(_FINISH, by_column(_OUTCOMES, rows))
    endings = {row[0]: Ending(row[0], JobStatus(row[1]), row[2]) for row in found}
    return [endings.pop(held.job_id, None) for held, _ in ended]


_CANCEL = sa.text(f"""
WITH ended AS (
    UPDATE llm_workflow_jobs j SET status = 'cancelled', {_USED}
     WHERE id = :job_id AND status IN ('pending', 'processing')
    RETURNING {_ENDED_COLUMNS}
{_AS_IT_ENDED}""")  # noqa: S608 - put together from the constants above


async def cancel(database: Database, job_id: UUID) -> Ending | None:
    """End an unfinished job as cancelled, whoever holds it. None when it was finished, or never was."""
    async with database.statement() as connection:
        row = (await connection.execute(_CANCEL, {"job_id": job_id})).one_or_none()
    return Ending(row[0], JobStatus(row[1]), row[2]) if row is not None else None


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
    RETURNING {FREED_COLUMNS}
{GIVEN_BACK}""")  # noqa: S608 - put together from the constants above

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
{_TAIL.format(outcome="'lost'")}""")  # noqa: S608 - put together from the constants above


async def reap(database: Database, *, lease_s: float) -> tuple[list[Hint], list[Ending]]:
    """Take expired leases back: to pending while attempts are left, else to failed (`WorkerLost`)."""
    values = {"lease": lease_s, "outcome": AttemptOutcome.LOST.value}
    async with database.transaction() as connection:
        freed = [Hint(*row) for row in await connection.execute(_REQUEUE, values)]
        ended = [Ending(row[0], JobStatus(row[1]), row[2]) for row in await connection.execute(_FAIL, values)]
    return freed, ended
