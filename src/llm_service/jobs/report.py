"""Report an ended job to its caller: build the message, sign it, try once, write down what came of it."""

import random
from collections.abc import Iterable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import aiohttp
import msgspec
import structlog

from llm_service import failpoints
from llm_service.db import Database, insist
from llm_service.errors import SettingsInvalid
from llm_service.jobs.model import WebhookState
from llm_service.jobs.queue import JobQueue
from llm_service.jobs.secrets import SecretBox
from llm_service.jobs.store import deliveries
from llm_service.jobs.store.deliveries import DeliveryHint, DueDelivery, TryResult
from llm_service.jobs.store.leases import Ending
from llm_service.logs import get_logger
from llm_service.metrics import WEBHOOK_TRIES
from llm_service.settings import Secret
from llm_service.webhooks.post import DEADLINE_S, Answer, post
from llm_service.webhooks.schedule import GONE, next_delay_s
from llm_service.webhooks.signing import UnusableSecret, signature_headers

log = get_logger(__name__)

MAX_BODY = 1_000_000
LEASE_S = DEADLINE_S + 15.0


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """What a job used, over its successful model calls. Null is unknown."""

    input_tokens: int | None
    output_tokens: int | None
    total_tokens: int | None
    cost_usd: float | None
    calls: int


class WebhookBody(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=False):
    """The body of a webhook. Times are ISO 8601 with offset."""

    event: str
    job_id: UUID
    workflow_name: str
    status: str
    user_id: UUID | None
    username: str | None
    action: str | None
    result: Any
    error_message: str | None
    error_code: str | None
    created_at: datetime
    started_at: datetime | None
    completed_at: datetime | None
    duration_ms: int | None
    usage: Usage
    result_truncated: bool | msgspec.UnsetType = msgspec.UNSET
    """Present and true when the result would have made the body larger than 1 MB."""
    result_url: str | msgspec.UnsetType = msgspec.UNSET
    """Where to read a result that was left out."""


async def announce(queue: JobQueue, endings: Iterable[Ending]) -> None:
    """Wake whoever delivers the webhooks of jobs that have just ended; their rows are committed."""
    now = datetime.now(UTC)
    await queue.wake_webhooks([DeliveryHint(e.job_id, 0, now) for e in endings if e.has_webhook])


class Reporter:
    """Delivers webhooks in one worker process."""

    def __init__(
        self,
        *,
        database: Database,
        queue: JobQueue,
        session: aiohttp.ClientSession,
        secrets: SecretBox,
        service_secret: Secret | None,
        chance: random.Random | None = None,
    ) -> None:
        self._database = database
        self._queue = queue
        self._session = session
        self._secrets = secrets
        self._service_secret = service_secret
        self._chance = chance or random.Random()  # noqa: S311 - jitter

    async def deliver(self, job_id: UUID) -> None:
        """Try a due delivery once. Returns quietly when it is not due or somebody else is at it."""
        due = await deliveries.claim(self._database, job_id, lease_s=LEASE_S)
        if due is None:
            return
        structlog.contextvars.bind_contextvars(job_id=str(job_id), request_id=due.request_id)
        body = webhook_body(due)
        try:
            # The time in the signature is read by the receiver against its own clock: this host's it is.
            headers = signature_headers(self._secret_of(due), due.webhook_id, datetime.now(UTC), body)
        except (SettingsInvalid, UnusableSecret) as error:
            # Nothing may go out unsigned that should be signed. The next try finds a key that was put right.
            log.error("webhook can't be signed", reason=error.message)  # noqa: TRY400 - no traceback: it holds the secret
            await self._settle(job_id, due, Answer(latency_ms=0, error="the message could not be signed"))
            return
        answer = await post(
            self._session,
            due.url,
            body,
            {**headers, "Content-Type": "application/json", "User-Agent": "llm-service"},
        )
        await failpoints.hit("report.after-post-before-settle")
        await self._settle(job_id, due, answer)

    def _secret_of(self, due: DueDelivery) -> str | None:
        own = self._secrets.open(due.sealed_secret)
        if own:
            return own
        return self._service_secret.reveal() if self._service_secret is not None else None

    async def _settle(self, job_id: UUID, due: DueDelivery, answer: Answer) -> None:
        state, retry_in_s = self._next(due.tries + 1, answer)
        result = TryResult(
            status_code=answer.status, latency_ms=answer.latency_ms, response=answer.text, error=answer.error
        )
        hint = await insist(
            lambda: deliveries.settle(
                self._database, job_id, due.token, result, state=state, retry_in_s=retry_in_s
            )
        )
        WEBHOOK_TRIES.labels(state.value).inc()
        log.info(
            "webhook tried", tries=due.tries + 1, state=state.value, status=answer.status, error=answer.error
        )
        if hint is not None:
            await self._queue.wake_webhooks([hint])

    def _next(self, tries: int, answer: Answer) -> tuple[WebhookState, float | None]:
        if answer.delivered:
            return WebhookState.DELIVERED, None
        if answer.blocked:
            return WebhookState.BLOCKED, None
        if answer.status == GONE:
            return WebhookState.EXHAUSTED, None
        delay_s = next_delay_s(tries, answer.retry_after_s, chance=self._chance)
        return (WebhookState.EXHAUSTED if delay_s is None else WebhookState.RETRYING), delay_s


def webhook_body(due: DueDelivery) -> bytes:
    """The bytes to sign and to send; a result that makes them more than 1 MB is left out and pointed to."""
    job = due.job
    body = WebhookBody(
        event=due.event,
        job_id=job.id,
        workflow_name=job.workflow_name,
        status=job.status,
        user_id=job.user_id,
        username=job.username,
        action=job.action,
        result=msgspec.Raw(job.result_json.encode()) if job.result_json is not None else None,
        error_message=job.error_message,
        error_code=job.error_code,
        created_at=job.created_at,
        started_at=job.started_at,
        completed_at=job.completed_at,
        duration_ms=job.duration_ms,
        usage=usage_of(
            due.usage.calls, due.usage.input_tokens, due.usage.output_tokens, job.total_tokens, job.cost_usd
        ),
    )
    encoded = msgspec.json.encode(body)
    if len(encoded) <= MAX_BODY:
        return encoded
    pointer = f"/api/v1/jobs/{job.id}"
    return msgspec.json.encode(
        msgspec.structs.replace(body, result=None, result_truncated=True, result_url=pointer)
    )


def usage_of(
    calls: int, input_tokens: int | None, output_tokens: int | None, total: int | None, cost: Decimal | None
) -> Usage:
    return Usage(
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        total_tokens=total,
        cost_usd=None if cost is None else float(cost),
        calls=calls,
    )
