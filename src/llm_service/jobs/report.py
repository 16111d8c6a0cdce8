"""Report an ended job to its caller: build the message, sign it, try once, write down what came of it."""

import random
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit
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
from llm_service.jobs.store.deliveries import DeliveryHint, Report, Settlement, TryLease, TryResult
from llm_service.jobs.store.endings import Ending
from llm_service.logs import get_logger
from llm_service.metrics import WEBHOOK_TRIES
from llm_service.settings import Secret
from llm_service.together import Together
from llm_service.webhooks.lanes import Lanes
from llm_service.webhooks.post import DEADLINE_S, Answer, post
from llm_service.webhooks.schedule import GONE, next_delay_s
from llm_service.webhooks.signing import UnusableSecret, signature_headers

log = get_logger(__name__)

MAX_BODY = 1_000_000
MAX_ERROR = 1_000
"""Characters of an error message that stay where the message alone would break the limit."""
LEASE_S = DEADLINE_S + 15.0
WAIT_S = 60.0
"""A delivery that waits here for its turn is told to Redis again after this: its worker may have died."""
BODIES = 20
"""Messages read at a time: each may have 1 MB."""


def utc_now() -> datetime:
    """This host's clock, which the receiver reads the time in the signature against."""
    return datetime.now(UTC)


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
        service_secrets: Sequence[Secret],
        slots: int,
        chance: random.Random | None = None,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._database = database
        self._queue = queue
        self._session = session
        self._secrets = secrets
        self._service_secrets = service_secrets
        self._lanes = Lanes(slots)
        self._lookups = Together[UUID, str | None](lambda jobs: deliveries.receivers_of(database, jobs))
        self._waiting = Together(self._keep_waiting)
        self._claims = Together(self._claim_all, most=BODIES)
        self._settlements = Together[Settlement, DeliveryHint | None](
            lambda tries: deliveries.settle(database, tries)
        )
        self._is_stopping = False
        self._chance = chance or random.Random()  # noqa: S311 - jitter
        self._now = now

    def stop(self) -> None:
        """Begin nothing more that waits; another worker is told of it."""
        self._is_stopping = True

    async def deliver(self, job_id: UUID) -> None:
        """Try a due delivery once, and in the same slot those that have waited for it, one after another.

        Returns at once when it is not due, when somebody else is at it, and when it has to wait for its turn.
        """
        following: UUID | None = job_id
        while following is not None:
            following = await self._deliver_one(following)

    async def _deliver_one(self, job_id: UUID) -> UUID | None:
        url = await self._lookups.ask(job_id)
        host = host_of(url) if url is not None else None
        if host is not None and not self._lanes.enter(host, job_id):
            await self._waiting.ask(job_id)
            return None
        if host is not None:
            answer: Answer | None = None
            try:
                answer = await self._try(job_id)
            finally:
                self._lanes.leave(host, took_s=None if answer is None else answer.latency_ms / 1000)
        return None if self._is_stopping else self._lanes.following(host)

    async def _keep_waiting(self, job_ids: Sequence[UUID]) -> list[None]:
        await deliveries.keep_waiting(self._database, job_ids, for_s=WAIT_S)
        return [None] * len(job_ids)

    async def _claim_all(self, job_ids: Sequence[UUID]) -> list[tuple[TryLease, Report] | None]:
        return await deliveries.claim(self._database, job_ids, lease_s=LEASE_S, most_bytes=MAX_BODY)

    async def _try(self, job_id: UUID) -> Answer | None:
        claimed = await self._claims.ask(job_id)
        if claimed is None:
            return None
        lease = claimed[0]
        structlog.contextvars.bind_contextvars(job_id=str(job_id), request_id=lease.request_id)
        body = webhook_body(claimed[1])
        del claimed  # a receiver that hangs holds the body alone
        answer = await self._post(lease, body)
        await self._settle(job_id, lease, answer)
        return answer

    async def _post(self, lease: TryLease, body: bytes) -> Answer:
        try:
            headers = signature_headers(self._secrets_of(lease), lease.webhook_id, self._now(), body)
        except (SettingsInvalid, UnusableSecret) as error:
            # Nothing may go out unsigned that should be signed. The next try finds a key that was put right.
            log.error("webhook can't be signed", reason=error.message)  # noqa: TRY400 - no traceback: it holds the secret
            return Answer(latency_ms=0, error="the message could not be signed")
        answer = await post(
            self._session,
            lease.url,
            body,
            {**headers, "Content-Type": "application/json", "User-Agent": "llm-service"},
        )
        await failpoints.hit("report.after-post-before-settle")
        return answer

    def _secrets_of(self, lease: TryLease) -> list[str]:
        own = self._secrets.open(lease.sealed_secret)
        return [own] if own else [secret.reveal() for secret in self._service_secrets]

    async def _settle(self, job_id: UUID, lease: TryLease, answer: Answer) -> None:
        state, retry_in_s = self._next(lease.tries + 1 - lease.tries_before, answer)
        result = TryResult(
            status_code=answer.status, latency_ms=answer.latency_ms, response=answer.text, error=answer.error
        )
        settlement = Settlement(job_id, lease.token, state, retry_in_s, result)
        hint = await insist(lambda: self._settlements.ask(settlement))
        WEBHOOK_TRIES.labels(state.value).inc()
        log.info(
            "webhook tried",
            tries=lease.tries + 1,
            state=state.value,
            status=answer.status,
            error=answer.error,
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


def host_of(url: str) -> str:
    """What the limit of deliveries at a time counts by: the name, whatever its port."""
    try:
        return (urlsplit(url).hostname or "").rstrip(".")
    except ValueError:
        return ""  # a row from before URLs were checked: its try will say that it is not one


def webhook_body(report: Report) -> bytes:
    """The bytes to sign and to send; a result that makes them more than 1 MB is left out and pointed to."""
    body = WebhookBody(
        event=report.event,
        job_id=report.job_id,
        workflow_name=report.workflow_name,
        status=report.status,
        user_id=report.user_id,
        username=report.username,
        action=report.action,
        result=msgspec.Raw(report.result_json.encode()) if report.result_json is not None else None,
        error_message=report.error_message,
        error_code=report.error_code,
        created_at=report.created_at,
        started_at=report.started_at,
        completed_at=report.completed_at,
        duration_ms=report.duration_ms,
        usage=usage_of(
            report.calls,
            report.input_tokens,
            report.output_tokens,
            report.total_tokens,
            report.cost_usd,
        ),
    )
    encoded = msgspec.json.encode(body)
    if report.has_result and (report.result_json is None or len(encoded) > MAX_BODY):
        pointer = f"/api/v1/jobs/{report.job_id}"
        body = msgspec.structs.replace(body, result=None, result_truncated=True, result_url=pointer)
        encoded = msgspec.json.encode(body)
    if len(encoded) > MAX_BODY and body.error_message is not None:
        cut = body.error_message[:MAX_ERROR] + " ..."
        encoded = msgspec.json.encode(msgspec.structs.replace(body, error_message=cut))
    return encoded


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
