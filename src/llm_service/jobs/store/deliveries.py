"""Webhook deliveries: which are due, who is trying one, and what each try came to."""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple
from uuid import UUID

import msgspec
import sqlalchemy as sa

from llm_service.db import Database
from llm_service.jobs.model import WebhookState
from llm_service.jobs.store.arrays import by_column, unnested


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
    job_id: UUID
    workflow_name: str
    status: str
    user_id: UUID | None
    username: str | None
    action: str | None
    error_message: str | None
    error_code: str | None
    created_at: datetime
    started_at: datetime | None
    completed_at: datetime | None
    duration_ms: int | None
    total_tokens: int | None
    cost_usd: Decimal | None
    result_json: str | None
    """None also where it is too large to be told."""
    has_result: bool
    calls: int
    input_tokens: int | None
    output_tokens: int | None


class TryResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a try came to. `status_code` is None where no answer came; `error` says why not, without addresses."""

    status_code: int | None = None
    latency_ms: int | None = None
    response: str | None = None
    error: str | None = None


_IS_FREE = "(d.lease_expires_at IS NULL OR d.lease_expires_at < now())"
_IS_DUE = f"d.next_attempt_at <= now() + interval '50 ms' AND {_IS_FREE}"

_RECEIVER = sa.text(f"""
SELECT j.id, j.webhook_url FROM llm_webhook_deliveries d JOIN llm_workflow_jobs j ON j.id = d.job_id
 WHERE d.job_id = ANY(CAST(:job_ids AS uuid[])) AND {_IS_DUE}
""")  # noqa: S608 - put together from the constants above


async def receivers_of(database: Database, job_ids: Sequence[UUID]) -> list[str | None]:
    """Where deliveries go that are due and that nobody is at, in order; None for any other. Takes nothing."""
    urls = {row[0]: row[1] for row in await database.fetch(_RECEIVER, {"job_ids": job_ids})}
    return [urls.get(job_id) for job_id in job_ids]


_CLAIM = sa.text(f"""
WITH due AS (
    SELECT job_id FROM llm_webhook_deliveries d
     WHERE job_id = ANY(CAST(:job_ids AS uuid[])) AND {_IS_DUE}
     ORDER BY job_id FOR NO KEY UPDATE
), taken AS (
    UPDATE llm_webhook_deliveries d
       SET lease_token = gen_random_uuid(), lease_expires_at = now() + make_interval(secs => :lease)
      FROM due WHERE d.job_id = due.job_id
    RETURNING d.job_id, d.lease_token, webhook_id, event, tries, tries_before
)
SELECT taken.lease_token, webhook_id, tries, tries_before, webhook_url, webhook_secret, request_id,
       event, id, workflow_name, status, user_id, username, action, error_message, error_code,
       created_at, started_at, completed_at, duration_ms, total_tokens, cost_usd,
       CASE WHEN octet_length(CAST(result AS text)) <= :most THEN CAST(result AS text) END,
       result IS NOT NULL, used.*
  FROM taken JOIN llm_workflow_jobs j ON j.id = taken.job_id CROSS JOIN LATERAL (
       SELECT count(*), sum(input_tokens), sum(output_tokens)
         FROM llm_calls c WHERE c.job_id = taken.job_id AND c.status = 'succeeded') AS used
""")  # noqa: S608 - put together from the constants above


async def claim(
    database: Database, job_ids: Sequence[UUID], *, lease_s: float, most_bytes: int
) -> list[tuple[TryLease, Report] | None]:
    """Take the next tries of deliveries, in order; None where it is not due, or somebody else is at it.

    A result of more than `most_bytes` as JSON stays where it is: `has_result` without `result_json`.
    """
    values = {"job_ids": job_ids, "lease": lease_s, "most": most_bytes}
    fields = len(TryLease._fields)
    taken = [(TryLease(*row[:fields]), Report(*row[fields:])) for row in await database.fetch(_CLAIM, values)]
    by_job = {report.job_id: (lease, report) for lease, report in taken}
    return [by_job.pop(job_id, None) for job_id in job_ids]


class Settlement(NamedTuple):
    """A try that its lease is for, and what comes next: `retry_in_s` is None where nothing does."""

    job_id: UUID
    token: UUID
    state: WebhookState
    retry_in_s: float | None
    result: TryResult


_SETTLEMENTS = {
    "job_ids": "uuid",
    "tokens": "uuid",
    "states": "varchar",
    "retries_in": "double precision",
    "status_codes": "integer",
    "latencies": "integer",
    "responses": "text",
    "errors": "text",
}
_SETTLE = sa.text(f"""
WITH held AS (
    SELECT mine.* FROM {unnested(_SETTLEMENTS)}
           AS mine (id, token, state, retry_in, status_code, latency_ms, response, error)
      JOIN llm_webhook_deliveries d ON d.job_id = mine.id AND d.lease_token = mine.token
     ORDER BY d.job_id FOR NO KEY UPDATE OF d
), moved AS (
    UPDATE llm_webhook_deliveries d
       SET tries = tries + 1, state = held.state, lease_token = NULL, lease_expires_at = NULL,
           next_attempt_at = now() + make_interval(secs => held.retry_in), hinted_at = now(), updated_at = now()
      FROM held WHERE d.job_id = held.id
    RETURNING d.job_id, d.tries, d.state, d.next_attempt_at,
              held.status_code, held.latency_ms, held.response, held.error
), noted AS (
    INSERT INTO llm_webhook_attempts (job_id, number, started_at, status_code, latency_ms, response, error)
    SELECT job_id, tries, now() - make_interval(secs => coalesce(latency_ms, 0) / 1000.0),
           status_code, latency_ms, response, error
      FROM moved
), shown AS (
    UPDATE llm_workflow_jobs j SET webhook_state = moved.state, updated_at = now()
      FROM moved WHERE j.id = moved.job_id
)
SELECT job_id, tries, next_attempt_at FROM moved
""")  # noqa: S608 - put together from the constants above


async def settle(database: Database, tries: Sequence[Settlement]) -> list[DeliveryHint | None]:
    """Write tries down and say what comes next. In order, the hint of the next try, or None where there is none."""
    rows = [(*settlement[:-1], *msgspec.structs.astuple(settlement.result)) for settlement in tries]
    moved = {
        row[0]: DeliveryHint(*row) for row in await database.fetch(_SETTLE, by_column(_SETTLEMENTS, rows))
    }
    hints = [moved.get(settlement.job_id) for settlement in tries]
    return [hint if hint is not None and hint.due_at is not None else None for hint in hints]


_KEEP = sa.text(f"""
WITH due AS (
    SELECT job_id FROM llm_webhook_deliveries d
     WHERE job_id = ANY(CAST(:job_ids AS uuid[])) AND {_IS_DUE}
     ORDER BY job_id FOR NO KEY UPDATE
)
UPDATE llm_webhook_deliveries d SET hinted_at = now() + make_interval(secs => :seconds)
  FROM due WHERE d.job_id = due.job_id
""")  # noqa: S608 - put together from the constants above


async def keep_waiting(database: Database, job_ids: Sequence[UUID], *, for_s: float) -> None:
    """Due deliveries wait in a worker for their turn: Redis need not be told of them for so long."""
    await database.fetch(_KEEP, {"job_ids": job_ids, "seconds": for_s})


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
