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


class TryLease(NamedTuple):
    """A lease on one try of a delivery, and what is needed to make it."""

    token: UUID
    webhook_id: str
    tries: int
    tries_before: int
    url: str
    sealed_secret: str | None
    request_id: str | None


class Report(NamedTuple):
    """What a delivery tells: the job as it ended, and what it used."""

    event: str
    job: sa.Row[Any]
    usage: sa.Row[Any]


class TryResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a try came to. `status_code` is None where no answer came; `error` says why not, without addresses."""

    status_code: int | None = None
    latency_ms: int | None = None
    response: str | None = None
    error: str | None = None


_IS_FREE = "(d.lease_expires_at IS NULL OR d.lease_expires_at < now())"
_IS_DUE = f"d.next_attempt_at <= now() + interval '50 ms' AND {_IS_FREE}"

_RECEIVER = sa.text(f"""
SELECT j.webhook_url FROM llm_webhook_deliveries d JOIN llm_workflow_jobs j ON j.id = d.job_id
 WHERE d.job_id = :job_id AND {_IS_DUE}
""")  # noqa: S608 - put together from the constants above


async def receiver_of(database: Database, job_id: UUID) -> str | None:
    """Where a delivery goes that is due and that nobody is at; None for any other. Takes nothing."""
    async with database.statement() as connection:
        url: str | None = (await connection.execute(_RECEIVER, {"job_id": job_id})).scalar_one_or_none()
    return url


_CLAIM = sa.text(f"""
UPDATE llm_webhook_deliveries d
   SET lease_token = gen_random_uuid(), lease_expires_at = now() + make_interval(secs => :lease)
 WHERE job_id = :job_id AND {_IS_DUE}
RETURNING lease_token, webhook_id, event, tries, tries_before
""")  # noqa: S608 - put together from the constants above
_JOB = sa.text("""
SELECT id, workflow_name, status, user_id, username, action, error_message, error_code,
       CASE WHEN octet_length(CAST(result AS text)) <= :most THEN CAST(result AS text) END AS result_json,
       result IS NOT NULL AS has_result, created_at, started_at, completed_at, duration_ms, total_tokens, cost_usd,
       webhook_url, webhook_secret, request_id
  FROM llm_workflow_jobs WHERE id = :job_id
""")
_USAGE = sa.text("""
SELECT count(*) AS calls, sum(input_tokens) AS input_tokens, sum(output_tokens) AS output_tokens
  FROM llm_calls WHERE job_id = :job_id AND status = 'succeeded'
""")


async def claim(
    database: Database, job_id: UUID, *, lease_s: float, most_bytes: int
) -> tuple[TryLease, Report] | None:
    """Take the next try of a delivery, if it is due and nobody else is at it.

    A result of more than `most_bytes` as JSON stays where it is: `has_result` without `result_json`.
    """
    async with database.transaction() as connection:
        values = {"job_id": job_id}
        taken = (await connection.execute(_CLAIM, values | {"lease": lease_s})).one_or_none()
        if taken is None:
            return None
        job = (await connection.execute(_JOB, values | {"most": most_bytes})).one()
        usage = (await connection.execute(_USAGE, values)).one()
    lease = TryLease(
        token=taken.lease_token,
        webhook_id=taken.webhook_id,
        tries=taken.tries,
        tries_before=taken.tries_before,
        url=job.webhook_url,
        sealed_secret=job.webhook_secret,
        request_id=job.request_id,
    )
    return lease, Report(taken.event, job, usage)


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


_KEEP = sa.text(f"""
UPDATE llm_webhook_deliveries d SET hinted_at = now() + make_interval(secs => :seconds)
 WHERE job_id = :job_id AND {_IS_DUE}
""")  # noqa: S608 - put together from the constants above


async def keep_waiting(database: Database, job_id: UUID, *, for_s: float) -> None:
    """A due delivery waits in a worker for its turn: Redis need not be told of it for so long."""
    async with database.statement() as connection:
        await connection.execute(_KEEP, {"job_id": job_id, "seconds": for_s})


# A finished job from before there were deliveries gets one now. What is being tried right now stays as it is.
_SEND_AGAIN = sa.text(f"""
WITH job AS (
    SELECT id, status FROM llm_workflow_jobs
     WHERE id = :job_id AND webhook_url IS NOT NULL AND status IN ('completed', 'failed', 'cancelled')
), moved AS (
    INSERT INTO llm_webhook_deliveries AS d (job_id, webhook_id, event, next_attempt_at, hinted_at)
    SELECT id, 'msg_' || replace(CAST(id AS text), '-', ''), 'workflow.' || status, now(), now() FROM job
    ON CONFLICT (job_id) DO UPDATE
       SET state = 'pending', tries_before = d.tries, next_attempt_at = now(), hinted_at = now(), updated_at = now()
     WHERE {_IS_FREE}
    RETURNING d.job_id, d.tries, d.next_attempt_at, d.state
), shown AS (
    UPDATE llm_workflow_jobs j SET webhook_state = moved.state, updated_at = now()
      FROM moved WHERE j.id = moved.job_id
)
SELECT job_id, tries, next_attempt_at FROM moved
""")  # noqa: S608 - put together from the constants above
_STANDS = sa.text("""
SELECT j.status, j.webhook_url IS NOT NULL AS has_webhook, d.webhook_id, d.state
  FROM llm_workflow_jobs j LEFT JOIN llm_webhook_deliveries d ON d.job_id = j.id
 WHERE j.id = :job_id
""")


class Standing(NamedTuple):
    """A job's delivery after it was asked to go out again; `webhook_id` and `state` are None where it has none.

    `hint` is what Redis has to be told, where it was made due.
    """

    hint: DeliveryHint | None
    status: str
    has_webhook: bool
    webhook_id: str | None
    state: str | None


async def send_again(database: Database, job_id: UUID) -> Standing | None:
    """Make the delivery of a finished job due now, its schedule begun afresh; None where there is no such job.

    Changes nothing for an unfinished job, one without a webhook, and while a try is under way.
    """
    async with database.transaction() as connection:
        moved = (await connection.execute(_SEND_AGAIN, {"job_id": job_id})).one_or_none()
        stands = (await connection.execute(_STANDS, {"job_id": job_id})).one_or_none()
    if stands is None:
        return None
    return Standing(DeliveryHint(*moved) if moved is not None else None, *stands)


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
