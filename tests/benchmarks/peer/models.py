"""The peer's table, and its two engines: async for the API, sync for Celery."""

import os
import uuid
from datetime import UTC, datetime
from typing import Any

import orjson
from sqlalchemy import DateTime, Index, String, Text, create_engine, desc
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

FINISHED = ("completed", "failed", "cancelled")


def utc_now() -> datetime:
    return datetime.now(UTC)


def to_json(value: Any) -> str:
    return orjson.dumps(value).decode()


def open_async_engine() -> AsyncEngine:
    return create_async_engine(
        os.environ["DATABASE_URL"].replace("postgresql://", "postgresql+asyncpg://"),
        pool_size=20,
        max_overflow=20,
        json_serializer=to_json,
        json_deserializer=orjson.loads,
    )


def open_engine() -> Any:
    return create_engine(
        os.environ["DATABASE_URL"].replace("postgresql://", "postgresql+psycopg://"),
        pool_size=20,
        max_overflow=20,
        json_serializer=to_json,
        json_deserializer=orjson.loads,
    )


class Base(DeclarativeBase):
    type_annotation_map = {datetime: DateTime(timezone=True), dict[str, Any]: JSONB}  # noqa: RUF012 - SQLAlchemy's own convention


class WorkflowJob(Base):
    __tablename__ = "llm_workflow_jobs"
    __table_args__ = (
        Index("idx_jobs_created_at", desc("created_at"), desc("id")),
        Index("idx_jobs_status", "status", desc("created_at"), desc("id")),
        Index("idx_jobs_user_id", "user_id", desc("created_at"), desc("id")),
        Index("idx_jobs_action", "action", desc("created_at"), desc("id")),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    workflow_name: Mapped[str] = mapped_column(String(100))
    priority: Mapped[int] = mapped_column(default=0)
    webhook_url: Mapped[str | None] = mapped_column(Text)
    webhook_secret: Mapped[str | None] = mapped_column(String(255))
    debug_mode: Mapped[bool] = mapped_column(default=False)
    user_id: Mapped[uuid.UUID | None]
    username: Mapped[str | None] = mapped_column(String(255))
    action: Mapped[str | None] = mapped_column(String(255))
    status: Mapped[str] = mapped_column(String(50), default="pending")
    # Deferred: a list that loaded the payloads would be the N+1 of columns.
    input_data: Mapped[dict[str, Any]] = mapped_column(deferred=True)
    result: Mapped[dict[str, Any] | None] = mapped_column(deferred=True)
    error_message: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    queued_at: Mapped[datetime | None]
    started_at: Mapped[datetime | None]
    completed_at: Mapped[datetime | None]
    duration_ms: Mapped[int | None]
    attempts: Mapped[int] = mapped_column(default=0)
    webhook_status: Mapped[str | None] = mapped_column(String(20))
    webhook_attempts: Mapped[int] = mapped_column(default=0)
    prompt_tokens: Mapped[int | None]
    completion_tokens: Mapped[int | None]


if __name__ == "__main__":
    Base.metadata.create_all(open_engine())
