"""GET /jobs/{job_id}, and what can be done to one job: cancel, retry, send its webhook again."""

from typing import Any
from uuid import UUID

import msgspec
from litestar import Request, Response, delete, get, post
from litestar.datastructures import ResponseHeader
from litestar.params import FromPath

from llm_service.api.errors import documented
from llm_service.api.job_detail import JobDetail, detail_of
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
from llm_service.jobs.store import listing

COMMON_ERRORS = {
    "s401": (InvalidAPISecret,),
    "s404": (JobNotFound,),
    "s500": (InternalError,),
    "s503": (ServiceUnavailable,),
}


@get(
    ["/jobs/{job_id:str}", "/status/{job_id:str}"],
    tags=["Jobs"],
    summary="One job with everything about it",
    raises=[],
    responses=documented(**COMMON_ERRORS),
)
async def get_job(request: Request[Any, Any, Any], job_id: FromPath[str]) -> JobDetail:
    record = await listing.get_job(services_of(request).database, parse_job_id(job_id))
    if record is None:
        raise JobNotFound(job_id)
    return detail_of(record)


def parse_job_id(text: str) -> UUID:
    """An id that is no UUID names no job."""
    # UUID() would accept "urn:uuid:...", "{...}" and digits of any script.
    try:
        return msgspec.convert(text, UUID)
    except msgspec.ValidationError:
        raise JobNotFound(text) from None


class JobCancelResponse(msgspec.Struct, frozen=True, kw_only=True):
    job_id: UUID
    status: str
    message: str


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
    services = services_of(request)
    await services.limits.check(request.state.client, None)
    accepted = await services.desk.retry(earlier, request_id=request.state.request_id)
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
