"""The bare limit of a submit: Litestar and msgspec read the same body and answer 202; nothing is written."""

from datetime import UTC, datetime
from uuid import UUID

from litestar import Litestar, post
from litestar.params import JSONBody
from uuid_utils.compat import uuid7

from llm_service.api.workflow import WorkflowSubmitRequest, WorkflowSubmitResponse


@post("/api/v1/workflow", status_code=202)
async def accept(data: JSONBody[WorkflowSubmitRequest]) -> WorkflowSubmitResponse:
    job_id: UUID = uuid7()
    return WorkflowSubmitResponse(
        job_id=job_id,
        workflow_name=data.workflow_name,
        status="pending",
        status_url=f"/api/v1/jobs/{job_id}",
        queued_at=datetime.now(UTC),
    )


app = Litestar([accept], openapi_config=None)
