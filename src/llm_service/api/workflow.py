"""POST /workflow, POST /workflow/validate, GET /workflows."""

import hashlib
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import msgspec
from litestar import Request, Response, get, post
from litestar.datastructures import ResponseHeader
from litestar.params import HeaderParameter, JSONBody
from msgspec import Meta
from structlog.contextvars import bind_contextvars

from llm_service.api.body import StrictJSON, refuse_unstorable_text
from llm_service.api.errors import documented
from llm_service.api.services import services_of
from llm_service.errors import (
    BodyTooLarge,
    IdempotencyKeyReused,
    InternalError,
    InvalidAPISecret,
    InvalidInputData,
    MalformedBody,
    ServiceUnavailable,
    TooManyRequests,
    UnknownWorkflow,
    UnsafeWebhookURL,
    UnsupportedMediaType,
    ValidationError,
)
from llm_service.jobs.submit import IdempotencyClaim, Submission

MAX_KEY = 255

ShortText = Annotated[str, Meta(max_length=255)]


class WorkflowSubmitRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A workflow to run, and who asks for it and why."""

    workflow_name: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=100,
            description="A name from GET /workflows.",
            examples=["emergency_contacts"],
        ),
    ]
    input_data: Annotated[
        msgspec.Raw,
        Meta(
            description="The workflow's input: an object that fits its input_schema.",
            extra_json_schema={"type": "object", "additionalProperties": True},
        ),
    ]
    user_id: Annotated[UUID | None, Meta(description="The user on whose behalf this runs.")] = None
    username: Annotated[
        ShortText | None, Meta(description="As shown to admins.", examples=["jane_smith"])
    ] = None
    action: Annotated[
        ShortText | None,
        Meta(description="What the user is doing.", examples=["generate mission report"]),
    ] = None
    webhook_url: Annotated[
        Annotated[str, Meta(max_length=2048, extra_json_schema={"format": "uri"})] | None,
        Meta(description="Where to report the end of the job: an https URL at a public address."),
    ] = None
    webhook_secret: Annotated[
        ShortText | None, Meta(description="Signs the webhook. Write-only: nothing ever shows it.")
    ] = None
    priority: Annotated[int, Meta(ge=0, le=10, description="10 is most urgent.")] = 0
    debug_mode: Annotated[bool, Meta(description="Keep prompts and raw model answers with the job.")] = False


class WorkflowSubmitResponse(msgspec.Struct, frozen=True, kw_only=True):
    """Accepted: the job is committed to PostgreSQL and will end as completed, failed or cancelled.

    That holds while Redis is away, too. With an Idempotency-Key this may be the answer to an earlier request.
    """

    job_id: UUID
    workflow_name: str
    status: str
    status_url: str
    queued_at: datetime


class WorkflowValidateResponse(msgspec.Struct, frozen=True, kw_only=True):
    """Submitting this body would be accepted. Nothing was written."""

    valid: bool
    workflow_name: str
    estimated_llm_calls: int


class WorkflowDetail(msgspec.Struct, frozen=True, kw_only=True):
    """What can be run; both schemas are JSON Schema."""

    name: str
    description: str
    version: str
    input_schema: dict[str, Any]
    output_schema: dict[str, Any]


class WorkflowsResponse(msgspec.Struct, frozen=True, kw_only=True):
    """Every workflow of this service, by name."""

    workflows: list[WorkflowDetail]


BODY_ERRORS = {
    "s400": (MalformedBody,),
    "s401": (InvalidAPISecret,),
    "s413": (BodyTooLarge,),
    "s415": (UnsupportedMediaType,),
    "s500": (InternalError,),
}

IdempotencyKey = Annotated[
    str | None,
    HeaderParameter(
        name="Idempotency-Key",
        required=False,
        description="The same key with the same body gets the first answer again, for at least 24 h, "
        "with Idempotent-Replay: true; with another body, 422 IdempotencyKeyReused.",
        schema_extra={"oneOf": None, "type": "string", "minLength": 1, "maxLength": MAX_KEY},
    ),
]


@post(
    "/workflow",
    status_code=202,
    dto=StrictJSON[WorkflowSubmitRequest],
    return_dto=None,
    tags=["Workflows"],
    summary="Submit a workflow",
    description="202 means that the job is committed: it will end as completed, failed or cancelled.",
    raises=[],
    response_headers=[
        ResponseHeader(
            name="Location", documentation_only=True, description="The job, /api/v1/jobs/{job_id}"
        ),
        ResponseHeader(
            name="Idempotent-Replay", documentation_only=True, description="true: an earlier answer again"
        ),
    ],
    responses=documented(
        **BODY_ERRORS,
        s422=(ValidationError, UnknownWorkflow, InvalidInputData, UnsafeWebhookURL, IdempotencyKeyReused),
        s429=(TooManyRequests,),
        s503=(ServiceUnavailable,),
    ),
)
async def submit_workflow(
    request: Request[Any, Any, Any],
    data: JSONBody[WorkflowSubmitRequest],
    idempotency_key: IdempotencyKey = None,
) -> Response[WorkflowSubmitResponse]:
    once = None
    if idempotency_key is not None:
        key = _checked_key(request.headers.getall("Idempotency-Key"))
        once = IdempotencyClaim(key, hashlib.sha256(await request.body()).digest())
    submission = _submission(data)
    services = services_of(request)
    await services.limits.check(request.state.client, submission.user_id or submission.username)
    accepted, is_replay = await services.desk.submit(
        submission, request_id=request.state.request_id, once=once
    )
    bind_contextvars(job_id=str(accepted.job_id), workflow=accepted.workflow_name)
    where = f"/api/v1/jobs/{accepted.job_id}"
    answer = WorkflowSubmitResponse(
        job_id=accepted.job_id,
        workflow_name=accepted.workflow_name,
        status="pending",
        status_url=where,
        queued_at=accepted.queued_at,
    )
    headers = {"Location": where} | ({"Idempotent-Replay": "true"} if is_replay else {})
    return Response(answer, status_code=202, headers=headers)


@post(
    "/workflow/validate",
    status_code=200,
    dto=StrictJSON[WorkflowSubmitRequest],
    return_dto=None,
    tags=["Workflows"],
    summary="Check a submission without making a job",
    raises=[],
    responses=documented(
        **BODY_ERRORS, s422=(ValidationError, UnknownWorkflow, InvalidInputData, UnsafeWebhookURL)
    ),
)
async def validate_workflow(
    request: Request[Any, Any, Any], data: JSONBody[WorkflowSubmitRequest]
) -> WorkflowValidateResponse:
    calls = services_of(request).desk.check(_submission(data))
    return WorkflowValidateResponse(valid=True, workflow_name=data.workflow_name, estimated_llm_calls=calls)


@get(
    "/workflows",
    tags=["Workflows"],
    summary="What can be run",
    raises=[],
    responses=documented(s401=(InvalidAPISecret,), s500=(InternalError,)),
)
async def list_workflows(request: Request[Any, Any, Any]) -> WorkflowsResponse:
    return WorkflowsResponse(
        workflows=[
            WorkflowDetail(
                name=workflow.name,
                description=workflow.description,
                version=workflow.version,
                input_schema=workflow.input_schema(),
                output_schema=workflow.output_schema(),
            )
            for _, workflow in sorted(services_of(request).desk.workflows.items())
        ]
    )


def _submission(data: WorkflowSubmitRequest) -> Submission:
    input_json = bytes(data.input_data)
    if not input_json.startswith(b"{"):
        raise ValidationError("Expected `object`", ["body", "input_data"])
    return Submission(
        workflow_name=data.workflow_name,
        input_json=input_json,
        user_id=data.user_id,
        username=data.username,
        action=data.action,
        webhook_url=data.webhook_url or None,
        webhook_secret=data.webhook_secret,
        priority=data.priority,
        debug_mode=data.debug_mode,
    )


def _checked_key(keys: list[str]) -> str:
    key, *others = keys
    if others:
        raise ValidationError("may be given once", ["header", "Idempotency-Key"])
    if not key or len(key) > MAX_KEY:
        raise ValidationError("must have 1 to 255 characters", ["header", "Idempotency-Key"])
    refuse_unstorable_text(key, ["header", "Idempotency-Key"])
    return key
