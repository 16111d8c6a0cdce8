"""One job with everything about it, as `GET /jobs/{job_id}` answers."""

from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec

from llm_service.api.jobs import JobSummary, dollars, summary_fields
from llm_service.jobs.report import Usage, usage_of
from llm_service.jobs.store.listing import JobRecord


class AttemptDetail(msgspec.Struct, kw_only=True):
    """One claim by a worker. `outcome`: running, completed, failed, cancelled, released or lost."""

    worker: str
    started_at: datetime
    ended_at: datetime | None
    outcome: str
    error_code: str | None


class CallDetail(msgspec.Struct, kw_only=True):
    """One model call. `prompt` and `answer` are kept in debug_mode only."""

    step: str
    provider: str
    model: str
    status: str
    started_at: datetime
    completed_at: datetime | None
    latency_ms: int | None
    input_tokens: int | None
    output_tokens: int | None
    cost_usd: float | None
    retries: int
    error_code: str | None
    error_message: str | None
    prompt: list[Any] | None
    answer: str | None


class WebhookTry(msgspec.Struct, kw_only=True):
    number: int
    started_at: datetime
    status_code: int | None
    latency_ms: int | None
    response: str | None
    error: str | None


class WebhookDetail(msgspec.Struct, kw_only=True):
    """The delivery of a job's webhook; `webhook_id` is stable over its tries."""

    state: str
    webhook_id: str | None
    next_attempt_at: datetime | None
    attempts: list[WebhookTry]


class JobDetail(JobSummary, kw_only=True):
    """Everything about one job."""

    input_data: Any
    result: Any
    queued_at: datetime | None
    max_attempts: int
    debug_mode: bool
    webhook_url: str | None
    retried_from: UUID | None
    request_id: str | None
    webhook: WebhookDetail
    attempts: list[AttemptDetail]
    llm_calls: list[CallDetail]
    usage: Usage


def detail_of(record: JobRecord) -> JobDetail:
    job = record.job
    paid = [call for call in record.calls if call.status == "succeeded"]
    return JobDetail(
        **summary_fields(job),
        input_data=msgspec.Raw(job.input_data.encode()),
        result=None if job.result is None else msgspec.Raw(job.result.encode()),
        queued_at=job.queued_at,
        max_attempts=job.max_attempts,
        debug_mode=job.debug_mode,
        webhook_url=job.webhook_url,
        retried_from=job.retried_from,
        request_id=job.request_id,
        webhook=_webhook_of(record),
        attempts=[msgspec.convert(row._mapping, AttemptDetail) for row in record.attempts],  # noqa: SLF001
        llm_calls=[
            msgspec.convert({**row._mapping, "cost_usd": dollars(row.cost_usd)}, CallDetail)  # noqa: SLF001
            for row in record.calls
        ],
        usage=usage_of(
            len(paid),
            _sum(call.input_tokens for call in paid),
            _sum(call.output_tokens for call in paid),
            _sum(
                total for call in paid if (total := _sum([call.input_tokens, call.output_tokens])) is not None
            ),
            _cost(paid),
        ),
    )


def _webhook_of(record: JobRecord) -> WebhookDetail:
    delivery = record.delivery
    return WebhookDetail(
        state=record.job.webhook_state,
        webhook_id=None if delivery is None else delivery.webhook_id,
        next_attempt_at=None if delivery is None else delivery.next_attempt_at,
        attempts=[msgspec.convert(row._mapping, WebhookTry) for row in record.tries],  # noqa: SLF001
    )


def _sum(numbers: Any) -> int | None:
    known = [number for number in numbers if number is not None]
    return sum(known) if known else None


def _cost(paid: list[Any]) -> Decimal | None:
    """The cost of all calls; None as soon as one of them is not known."""
    costs = [call.cost_usd for call in paid]
    return sum(costs, Decimal(0)) if costs and None not in costs else None
