"""The peer's API: FastAPI, pydantic, one async ORM session a request."""

import hmac
import os
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Header, HTTPException, Query, Response
from fastapi.concurrency import run_in_threadpool
from models import WorkflowJob, open_async_engine
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import undefer
from tasks import WORKFLOWS, run_workflow

SECRET = os.environ["API_SECRET"].encode()

engine = open_async_engine()
new_session = async_sessionmaker(engine, expire_on_commit=False)


class SubmitRequest(BaseModel):
    workflow_name: str = Field(min_length=1, max_length=100)
    input_data: dict[str, Any]
    user_id: uuid.UUID | None = None
    username: str | None = Field(None, max_length=255)
    action: str | None = Field(None, max_length=255)
    webhook_url: str | None = Field(None, max_length=2048)
    webhook_secret: str | None = Field(None, max_length=255)
    priority: int = Field(0, ge=0, le=10)
    debug_mode: bool = False


class SubmitResponse(BaseModel):
    job_id: uuid.UUID
    workflow_name: str
    status: str
    status_url: str
    queued_at: datetime


class JobSummary(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    job_id: uuid.UUID = Field(validation_alias="id")
    workflow_name: str
    status: str
    priority: int
    user_id: uuid.UUID | None
    username: str | None
    action: str | None
    created_at: datetime
    started_at: datetime | None
    completed_at: datetime | None
    duration_ms: int | None
    error_message: str | None


class JobDetail(JobSummary):
    input_data: dict[str, Any]
    result: dict[str, Any] | None
    attempts: int
    webhook_status: str | None
    webhook_attempts: int


class JobsListResponse(BaseModel):
    jobs: list[JobSummary]
    total: int
    limit: int
    offset: int


async def open_session() -> AsyncIterator[AsyncSession]:
    async with new_session() as session:
        yield session


Session = Annotated[AsyncSession, Depends(open_session)]


async def require_secret(x_api_secret: Annotated[str, Header()] = "") -> None:
    if not hmac.compare_digest(x_api_secret.encode(), SECRET):
        raise HTTPException(401, "Invalid API secret")


router = APIRouter(prefix="/api/v1", dependencies=[Depends(require_secret)])


@router.post("/workflow", status_code=202)
async def submit_workflow(asked: SubmitRequest, response: Response, session: Session) -> SubmitResponse:
    if asked.workflow_name not in WORKFLOWS:
        raise HTTPException(422, "Unknown workflow")
    now = datetime.now(UTC)
    job = WorkflowJob(id=uuid.uuid4(), status="pending", queued_at=now, created_at=now, **asked.model_dump())
    session.add(job)
    await session.commit()
    # Celery speaks to Redis synchronously: on a thread, so that the event loop goes on.
    await run_in_threadpool(run_workflow.apply_async, args=[str(job.id)], priority=10 - asked.priority)
    where = f"/api/v1/jobs/{job.id}"
    response.headers["Location"] = where
    return SubmitResponse(
        job_id=job.id, workflow_name=job.workflow_name, status="pending", status_url=where, queued_at=now
    )


def window_start(word: str, now: datetime) -> datetime | None:
    match word:
        case "Today":
            return now.replace(hour=0, minute=0, second=0, microsecond=0)
        case "7 Days" | "30 Days":
            return now - timedelta(days=int(word.split(maxsplit=1)[0]))
    return None


@router.get("/jobs")
async def list_jobs(
    session: Session,
    status: str = "all",
    user_id: uuid.UUID | None = None,
    action: str | None = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    offset: Annotated[int, Query(ge=0, le=100_000)] = 0,
    limit_results: str | None = None,
) -> JobsListResponse:
    conditions: list[Any] = []
    if status != "all":
        conditions.append(WorkflowJob.status == status)
    if user_id is not None:
        conditions.append(WorkflowJob.user_id == user_id)
    if action is not None:
        conditions.append(WorkflowJob.action == action)
    if limit_results:
        start = window_start(limit_results, datetime.now(UTC))
        if start is not None:
            conditions.append(WorkflowJob.created_at >= start)
        elif limit_results.isdecimal() and 1 <= int(limit_results) <= 500:
            limit = int(limit_results)
        else:
            raise HTTPException(400, {"error": "InvalidLimitResults", "limit_results": limit_results[:100]})
    total = await session.scalar(select(func.count()).select_from(WorkflowJob).where(*conditions))
    newest = (
        select(WorkflowJob).where(*conditions).order_by(WorkflowJob.created_at.desc(), WorkflowJob.id.desc())
    )
    jobs = await session.scalars(newest.limit(limit).offset(offset))
    return JobsListResponse(
        jobs=[JobSummary.model_validate(job) for job in jobs], total=total, limit=limit, offset=offset
    )


@router.get("/jobs/{job_id}")
async def get_job(job_id: uuid.UUID, session: Session) -> JobDetail:
    payload = [undefer(WorkflowJob.input_data), undefer(WorkflowJob.result)]
    job = await session.get(WorkflowJob, job_id, options=payload)
    if job is None:
        raise HTTPException(404, "No such job")
    return JobDetail.model_validate(job)


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    yield
    await engine.dispose()


app = FastAPI(title="Peer", lifespan=lifespan)
app.include_router(router)


@app.get("/health")
async def health() -> dict[str, str]:
    return {"status": "healthy"}
