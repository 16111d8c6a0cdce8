"""GET /jobs/{job_id}, and what can be done to one job: cancel, retry, send its webhook again."""

from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec
from litestar import Request, Response, delete, get, post
from litestar.datastructures import ResponseHeader
from litestar.params import FromPath

from llm_service.api.errors import documented
from llm_service.api.jobs import JobSummary, dollars, summary_fields
from llm_service.api.services import services_of
from llm_service.api.workflow import WorkflowSubmitResponse
from llm_service.errors import (
    InternalError,
    InvalidAPISecret,
    InvalidInputData,
    JobNotCancellable,
    JobNotFound,
    JobNotRetryable,
    ServiceUnavailable,
    TooManyRequests,
    UnknownWorkflow,
    UnsafeWebhookURL,
    WebhookNotRedeliverable,
)
from llm_service.jobs import cancel
from llm_service.jobs.redeliver import redeliver
from llm_service.jobs.report import Usage, usage_of
from llm_service.jobs.store import listing
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


@get(
    ["/jobs/{job_id:str}", "/status/{job_id:str}"],
    tags=["Jobs"],
    summary="One job with everything about it",
    raises=[],
    responses=documented(
        s401=(InvalidAPISecret,), s404=(JobNotFound,), s500=(InternalError,), s503=(ServiceUnavailable,)
    ),
)
async def get_job(request: Request[Any, Any, Any], job_id: FromPath[str]) -> JobDetail:
    record = await listing.get_job(services_of(request).database, parse_job_id(job_id))
    if record is None:
        raise JobNotFound(job_id)
    return detail_of(record)


def parse_job_id(text: str) -> UUID:
    """An id that is no UUID names no job."""
    try:
        return UUID(text)
    except ValueError:
        raise JobNotFound(text) from None


class JobCancelResponse(msgspec.Struct, frozen=True, kw_only=True):
    job_id: UUID
    status: str
    message: str


COMMON_ERRORS = {
    "s401": (InvalidAPISecret,),
    "s404": (JobNotFound,),
    "s500": (InternalError,),
    "s503": (ServiceUnavailable,),
}
CANCEL_ERRORS = documented(**COMMON_ERRORS, s409=(JobNotCancellable,))
CANCEL = "A pending job is cancelled at once; a running one's model call is broken off. Cancelling again is 200 again."


@post(
    "/jobs/{job_id:str}/cancel",
    status_code=200,
    tags=["Jobs"],
    summary="Cancel an unfinished job",
    description=CANCEL,
    raises=[],
    responses=CANCEL_ERRORS,
)
async def cancel_job(request: Request[Any, Any, Any], job_id: FromPath[str]) -> JobCancelResponse:
    return await _cancel(request, job_id)


@delete(
    "/workflow/{job_id:str}",
    status_code=200,
    tags=["Jobs"],
    summary="Cancel an unfinished job (old name)",
    description=CANCEL,
    raises=[],
    responses=CANCEL_ERRORS,
)
async def cancel_workflow(request: Request[Any, Any, Any], job_id: FromPath[str]) -> JobCancelResponse:
    return await _cancel(request, job_id)


async def _cancel(request: Request[Any, Any, Any], job_id: str) -> JobCancelResponse:
    services = services_of(request)
    wanted = parse_job_id(job_id)
    await cancel.cancel(services.database, services.queue, wanted)
    return JobCancelResponse(job_id=wanted, status="cancelled", message="The job is cancelled.")


class JobRetryResponse(WorkflowSubmitResponse, frozen=True, kw_only=True):
    """The new job, and the one that it runs again."""

    retried_from: UUID


@post(
    "/jobs/{job_id:str}/retry",
    status_code=202,
    tags=["Jobs"],
    summary="Run a finished job again, as a new job",
    description="The same request as a new job, linked by retried_from. It calls the model again, and is paid again.",
    raises=[],
    response_headers=[
        ResponseHeader(
            name="Location", documentation_only=True, description="The new job, /api/v1/jobs/{job_id}"
        )
    ],
    responses=documented(
        **COMMON_ERRORS,
        s409=(JobNotRetryable,),
        s422=(UnknownWorkflow, InvalidInputData, UnsafeWebhookURL),
        s429=(TooManyRequests,),
    ),
)
async def retry_job(request: Request[Any, Any, Any], job_id: FromPath[str]) -> Response[JobRetryResponse]:
    earlier = parse_job_id(job_id)
    accepted = await services_of(request).desk.retry(earlier, request_id=request.state.request_id)
    where = f"/api/v1/jobs/{accepted.job_id}"
    answer = JobRetryResponse(
        job_id=accepted.job_id,
        workflow_name=accepted.workflow_name,
        status="pending",
        status_url=where,
        queued_at=accepted.queued_at,
        retried_from=earlier,
    )
    return Response(answer, status_code=202, headers={"Location": where})


class WebhookRedeliverResponse(msgspec.Struct, frozen=True, kw_only=True):
    """The delivery that goes out again; `webhook_id` is the one that its receiver knows."""

    job_id: UUID
    webhook_id: str
    webhook_state: str
    message: str


REDELIVER = """The same message under the same webhook-id, at once, whatever became of it before; its schedule of \
retries begins afresh and its tries go on counting. A try that is under way right now is the one asked for."""


@post(
    "/jobs/{job_id:str}/redeliver",
    status_code=202,
    tags=["Jobs"],
    summary="Send a finished job's webhook again",
    description=REDELIVER,
    raises=[],
    responses=documented(**COMMON_ERRORS, s409=(WebhookNotRedeliverable,)),
)
async def redeliver_webhook(
    request: Request[Any, Any, Any], job_id: FromPath[str]
) -> WebhookRedeliverResponse:
    services = services_of(request)
    accepted = await redeliver(services.database, services.queue, parse_job_id(job_id))
    return WebhookRedeliverResponse(
        job_id=accepted.job_id,
        webhook_id=accepted.webhook_id,
        webhook_state=accepted.state,
        message="The webhook is sent again.",
    )
