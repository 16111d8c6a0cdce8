"""Webhook deliveries: which are due, who is trying one, and what each try came to."""

from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import msgspec
import sqlalchemy as sa

from llm_service.db import Database
from llm_service.jobs.model import WebhookState


class DeliveryHint(NamedTuple):
    """What Redis has to be told: which delivery, which try of it, and when it is due."""

    job_id: UUID
    tries: int
    due_at: datetime


class DueDelivery(NamedTuple):
    """A lease on one try of a delivery, and the job that it tells about."""

    token: UUID
    webhook_id: str
    event: str
    tries: int
    url: str
    sealed_secret: str | None
    request_id: str | None
    job: sa.Row[Any]
    usage: sa.Row[Any]


class TryResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a try came to. `status_code` is None where no answer came; `error` says why not, without addresses."""

    status_code: int | None = None
    latency_ms: int | None = None
    response: str | None = None
    error: str | None = None


_CLAIM = sa.text("""
UPDATE llm_webhook_deliveries
   SET lease_token = gen_random_uuid(), lease_expires_at = now() + make_interval(secs => :lease)
 WHERE job_id = :job_id AND next_attempt_at <= now() + interval '50 ms'
   AND (lease_expires_at IS NULL OR lease_expires_at < now())
RETURNING lease_token, webhook_id, event, tries
""")
_JOB = sa.text("""
SELECT id, workflow_name, status, user_id, username, action, CAST(result AS text) AS result_json, error_message,
       error_code, created_at, started_at, completed_at, duration_ms, total_tokens, cost_usd,
       webhook_url, webhook_secret, request_id
  FROM llm_workflow_jobs WHERE id = :job_id
""")
_USAGE = sa.text("""
SELECT count(*) AS calls, sum(input_tokens) AS input_tokens, sum(output_tokens) AS output_tokens
  FROM llm_calls WHERE job_id = :job_id AND status = 'succeeded'
""")


async def claim(database: Database, job_id: UUID, *, lease_s: float) -> DueDelivery | None:
    """Take the next try of a delivery, if it is due and nobody else is at it."""
    async with database.transaction() as connection:
        values = {"job_id": job_id}
        taken = (await connection.execute(_CLAIM, values | {"lease": lease_s})).one_or_none()
        if taken is None:
            return None
        job = (await connection.execute(_JOB, values)).one()
        usage = (await connection.execute(_USAGE, values)).one()
    return DueDelivery(
        token=taken.lease_token,
        webhook_id=taken.webhook_id,
        event=taken.event,
        tries=taken.tries,
        url=job.webhook_url,
        sealed_secret=job.webhook_secret,
        request_id=job.request_id,
        job=job,
        usage=usage,
    )


_SETTLE = sa.text("""
WITH moved AS (
    UPDATE llm_webhook_deliveries
       SET tries = tries + 1, state = CAST(:state AS varchar), lease_token = NULL, lease_expires_at = NULL,
           next_attempt_at = now() + make_interval(secs => CAST(:retry_in AS double precision)),
           hinted_at = now(), updated_at = now()
     WHERE job_id = :job_id AND lease_token = :token
    RETURNING job_id, tries, state, next_attempt_at
), noted AS (
    INSERT INTO llm_webhook_attempts (job_id, number, started_at, status_code, latency_ms, response, error)
    SELECT job_id, tries, now() - make_interval(secs => coalesce(:latency_ms, 0) / 1000.0),
           :status_code, :latency_ms, :response, :error
      FROM moved
), shown AS (
    UPDATE llm_workflow_jobs j SET webhook_state = moved.state, updated_at = now()
      FROM moved WHERE j.id = moved.job_id
)
SELECT job_id, tries, next_attempt_at FROM moved
""").bindparams(
    sa.bindparam("latency_ms", type_=sa.Integer),
    sa.bindparam("status_code", type_=sa.Integer),
    sa.bindparam("response", type_=sa.Text),
    sa.bindparam("error", type_=sa.Text),
)


async def settle(
    database: Database,
    job_id: UUID,
    token: UUID,
    result: TryResult,
    *,
    state: WebhookState,
    retry_in_s: float | None,
) -> DeliveryHint | None:
    """Write a try down and say what comes next. The hint of the next try, or None when there is none."""
    values = msgspec.structs.asdict(result) | {
        "job_id": job_id,
        "token": token,
        "state": state.value,
        "retry_in": retry_in_s,
    }
    async with database.statement() as connection:
        row = (await connection.execute(_SETTLE, values)).one_or_none()
    return DeliveryHint(*row) if row is not None and row.next_attempt_at is not None else None


_DUE = sa.text("""
UPDATE llm_webhook_deliveries d SET hinted_at = now()
  FROM (SELECT job_id FROM llm_webhook_deliveries
         WHERE next_attempt_at <= now() AND (lease_expires_at IS NULL OR lease_expires_at < now())
           AND (hinted_at IS NULL OR greatest(hinted_at, next_attempt_at) < now() - make_interval(secs => :unseen))
         ORDER BY next_attempt_at LIMIT 500 FOR UPDATE SKIP LOCKED) AS due
 WHERE d.job_id = due.job_id
RETURNING d.job_id, d.tries, d.next_attempt_at
""")


async def due(database: Database, *, unseen_s: float) -> list[DeliveryHint]:
    """Deliveries that should have been tried by now: their hints may be lost."""
    async with database.statement() as connection:
        return [DeliveryHint(*row) for row in await connection.execute(_DUE, {"unseen": unseen_s})]
