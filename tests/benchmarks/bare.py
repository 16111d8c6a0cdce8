"""The bare limit of a submit: Litestar and msgspec read the same body and answer 202; nothing is written."""

from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

import msgspec
from litestar import Litestar, post
from litestar.params import JSONBody
from uuid_utils.compat import uuid7

from llm_service.api.workflow import WorkflowSubmitResponse

ShortText = Annotated[str, msgspec.Meta(max_length=255)]


class Asked(msgspec.Struct):
    workflow_name: str
    input_data: dict[str, Any]
    user_id: UUID | None = None
    username: ShortText | None = None
    action: ShortText | None = None
    webhook_url: str | None = None
    webhook_secret: ShortText | None = None
    priority: Annotated[int, msgspec.Meta(ge=0, le=10)] = 0
    debug_mode: bool = False


@post("/api/v1/workflow", status_code=202)
async def accept(data: JSONBody[Asked]) -> WorkflowSubmitResponse:
    job_id: UUID = uuid7()
    return WorkflowSubmitResponse(
        job_id=job_id,
        workflow_name=data.workflow_name,
        status="pending",
        status_url=f"/api/v1/jobs/{job_id}",
        queued_at=datetime.now(UTC),
    )


app = Litestar([accept], openapi_config=None)
