"""The tables, and what every column and state means: when it is set, by whom, and what comes next."""

import enum
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    LargeBinary,
    Numeric,
    SmallInteger,
    String,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

SCHEMA_VERSION = "0012"
"""The migration that these tables are the result of."""


class JobStatus(enum.StrEnum):
    """pending -> processing -> completed | failed | cancelled; processing -> pending; pending -> cancelled.

    A finished job never changes again: a retry is a new job.
    """

    PENDING = "pending"
    """Committed and waiting. Set at submit, when a worker gives the job back, and when its lease ran out."""
    PROCESSING = "processing"
    """A worker holds the lease. Set by its claim."""
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


UNFINISHED = (JobStatus.PENDING, JobStatus.PROCESSING)


class WebhookState(enum.StrEnum):
    """none -> pending -> delivered | retrying -> delivered | exhausted; blocked when the address is refused.

    Sending it again makes any of them but `none` pending.
    """

    NONE = "none"
    PENDING = "pending"
    DELIVERED = "delivered"
    RETRYING = "retrying"
    EXHAUSTED = "exhausted"
    BLOCKED = "blocked"


class AttemptOutcome(enum.StrEnum):
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    RELEASED = "released"
    """Given back at a shutdown; does not count against max_attempts."""
    LOST = "lost"
    """The lease ran out: the worker died, froze or was cut off."""


class CallStatus(enum.StrEnum):
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    LOST = "lost"
    """Begun by an attempt that was lost: it may have been paid for, its answer never reached us."""


class Base(DeclarativeBase):
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy's own convention
        datetime: DateTime(timezone=True),
        dict[str, Any]: JSONB,
        Decimal: Numeric(18, 9),
        bytes: LargeBinary,
        list[str]: ARRAY(Text),
    }


class WorkflowJob(Base):
    """One run of a workflow: who asked for it and why, what became of it."""

    __tablename__ = "llm_workflow_jobs"
    # Leases move with every beat: free room on each page keeps those updates off the indexes.
    __table_args__ = (
        Index("idx_workflow_jobs_created_at", text("created_at DESC"), text("id DESC")),
        Index("idx_workflow_jobs_status", "status", text("created_at DESC"), text("id DESC")),
        *(
            Index(f"idx_workflow_jobs_{name}", name, text("created_at DESC"), text("id DESC"), "status")
            for name in ("user_id", "username", "action", "workflow_name")
        ),
        Index(
            "idx_workflow_jobs_error_code",
            "error_code",
            text("created_at DESC"),
            text("id DESC"),
            postgresql_where=text("error_code IS NOT NULL"),
        ),
        Index(
            "idx_workflow_jobs_unfinished",
            text("created_at DESC"),
            text("id DESC"),
            postgresql_where=text("status IN ('pending', 'processing')"),
        ),
        Index(
            "idx_workflow_jobs_due",
            "status",
            "run_after",
            postgresql_where=text("status IN ('pending', 'processing')"),
        ),
        # The same lists by the time of the end. No row is in there before its end: submit and claim pay nothing.
        *(
            Index(
                f"idx_workflow_jobs_finished{name}",
                *leading,
                text("completed_at DESC"),
                text("id DESC"),
                *trailing,
                postgresql_where=text("completed_at IS NOT NULL" + condition),
            )
            for name, leading, trailing, condition in (
                ("", (), (), ""),
                ("_status", ("status",), (), ""),
                ("_error_code", ("error_code",), (), " AND error_code IS NOT NULL"),
                *(
                    (f"_{name}", (name,), ("status",), "")
                    for name in ("user_id", "username", "action", "workflow_name")
                ),
            )
        ),
        {"postgresql_with": {"fillfactor": "90"}},
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    """UUIDv7, made by the API: time-ordered."""
    workflow_name: Mapped[str] = mapped_column(String(100))
    priority: Mapped[int] = mapped_column(server_default=text("0"))
    """0..10, 10 is most urgent: a head start in the queue, not absolute precedence."""
    webhook_url: Mapped[str | None] = mapped_column(Text)
    webhook_secret: Mapped[str | None] = mapped_column(Text)
    """The job's own signing secret: Fernet text where a key is configured, else plain. Never read by a list."""
    debug_mode: Mapped[bool] = mapped_column(server_default=text("false"))
    """Keep prompts and raw answers after the job has finished."""
    user_id: Mapped[UUID | None]
    username: Mapped[str | None] = mapped_column(
        String(255), comment="Who asked, as shown to admins; null for jobs from before this column"
    )
    action: Mapped[str | None] = mapped_column(
        String(255), comment='What the user was doing, e.g. "generate mission report"; null if unknown'
    )
    status: Mapped[str] = mapped_column(String(50), server_default=text("'pending'"))
    input_data: Mapped[dict[str, Any]]
    result: Mapped[dict[str, Any] | None]
    """The workflow's output; set with `completed`."""
    error_message: Mapped[str | None] = mapped_column(Text)
    error_code: Mapped[str | None] = mapped_column(String(50))
    """Why it failed, in one word; set with `failed`."""
    queued_at: Mapped[datetime | None]
    """When it was accepted, or until when it is held back; the age that its place in the queue comes from."""
    started_at: Mapped[datetime | None]
    """The first claim."""
    completed_at: Mapped[datetime | None]
    """Set with any final state."""
    duration_ms: Mapped[int | None]
    """completed_at - started_at; null where it never started."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())

    attempt: Mapped[int] = mapped_column(SmallInteger, server_default=text("0"))
    """Claims that count: a release takes its claim back."""
    claims: Mapped[int] = mapped_column(server_default=text("0"))
    """Claims ever made; numbers the hints in Redis and the rows in job_attempts."""
    max_attempts: Mapped[int] = mapped_column(SmallInteger, server_default=text("3"))
    lease_token: Mapped[UUID | None]
    """Random, new with each claim; every write of a worker names it. Null unless processing."""
    lease_expires_at: Mapped[datetime | None]
    """Moved on by the heartbeat; past it the reconciler takes the job back. Not indexed: it would cost each beat."""
    worker: Mapped[str | None] = mapped_column(String(255))
    """Who holds, or last held, the lease."""
    run_after: Mapped[datetime] = mapped_column(server_default=func.now())
    """Not before this: when it was accepted or given back, later for a retry that is held back so that many do not
    start together."""
    hinted_at: Mapped[datetime | None]
    """When Redis was last told about this pending row; null: never for certain."""
    request_id: Mapped[str | None] = mapped_column(String(64))
    """The HTTP request that submitted it: leads from the job to the log."""
    retried_from: Mapped[UUID | None]
    """The job that this one runs again."""
    webhook_state: Mapped[str] = mapped_column(String(16), server_default=text("'none'"))
    total_tokens: Mapped[int | None]
    cost_usd: Mapped[Decimal | None]
    """Both set at the end, from llm_calls: null where no call said, never 0 for unknown."""


class JobAttempt(Base):
    """One claim of a job by a worker."""

    __tablename__ = "llm_job_attempts"

    job_id: Mapped[UUID] = mapped_column(
        ForeignKey("llm_workflow_jobs.id", ondelete="CASCADE"), primary_key=True
    )
    claim: Mapped[int] = mapped_column(primary_key=True)
    worker: Mapped[str] = mapped_column(String(255))
    started_at: Mapped[datetime] = mapped_column(server_default=func.now())
    ended_at: Mapped[datetime | None]
    outcome: Mapped[str] = mapped_column(String(16), server_default=text("'running'"))
    error_code: Mapped[str | None] = mapped_column(String(50))


class LLMCall(Base):
    """One model call: the ledger. A step that succeeded is never called again for its job."""

    __tablename__ = "llm_calls"
    __table_args__ = (
        Index(
            "idx_llm_calls_answered",
            "job_id",
            "step",
            unique=True,
            postgresql_where=text("status = 'succeeded'"),
        ),
        Index("idx_llm_calls_job_id", "job_id"),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    job_id: Mapped[UUID] = mapped_column(ForeignKey("llm_workflow_jobs.id", ondelete="CASCADE"))
    claim: Mapped[int]
    step: Mapped[str] = mapped_column(String(255))
    provider: Mapped[str] = mapped_column(String(50))
    model: Mapped[str] = mapped_column(String(255))
    status: Mapped[str] = mapped_column(String(16), server_default=text("'running'"))
    started_at: Mapped[datetime] = mapped_column(server_default=func.now())
    completed_at: Mapped[datetime | None]
    latency_ms: Mapped[int | None]
    input_tokens: Mapped[int | None]
    output_tokens: Mapped[int | None]
    cost_usd: Mapped[Decimal | None]
    """Null where the price is not known."""
    retries: Mapped[int] = mapped_column(server_default=text("0"))
    error_code: Mapped[str | None] = mapped_column(String(50))
    error_message: Mapped[str | None] = mapped_column(Text)
    prompt: Mapped[list[Any] | None] = mapped_column(JSONB)
    """The messages sent; debug_mode only."""
    answer: Mapped[str | None] = mapped_column(Text)
    """The raw answer: until the job has finished, afterwards in debug_mode only."""


class IdempotencyKey(Base):
    """An Idempotency-Key and the 202 it got; outlives its job, so that a deleted job is not run again."""

    __tablename__ = "llm_idempotency_keys"
    __table_args__ = (Index("idx_idempotency_keys_created_at", "created_at"),)

    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    body_hash: Mapped[bytes]
    """SHA-256 of the body as it was sent."""
    job_id: Mapped[UUID]
    workflow_name: Mapped[str] = mapped_column(String(100))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    """Also the job's queued_at: both are the start of one transaction."""


class WebhookDelivery(Base):
    """The one delivery stream of a job, written in the transaction that ends the job."""

    __tablename__ = "llm_webhook_deliveries"
    __table_args__ = (
        Index(
            "idx_webhook_deliveries_due",
            "next_attempt_at",
            postgresql_where=text("next_attempt_at IS NOT NULL"),
        ),
    )

    job_id: Mapped[UUID] = mapped_column(
        ForeignKey("llm_workflow_jobs.id", ondelete="CASCADE"), primary_key=True
    )
    webhook_id: Mapped[str] = mapped_column(String(64), unique=True)
    """Stable over retries: what the receiver knows the message by."""
    event: Mapped[str] = mapped_column(String(50))
    state: Mapped[str] = mapped_column(String(16), server_default=text("'pending'"))
    tries: Mapped[int] = mapped_column(server_default=text("0"))
    tries_before: Mapped[int] = mapped_column(server_default=text("0"))
    """Tries made when it was last sent again: the schedule of retries counts from there."""
    next_attempt_at: Mapped[datetime | None]
    """When the next try is due; null when there is none to come."""
    hinted_at: Mapped[datetime | None]
    """When Redis was last told; in the future while a worker keeps it waiting for its turn at a busy host."""
    lease_token: Mapped[UUID | None]
    lease_expires_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())


class WebhookAttempt(Base):
    """One try of a delivery."""

    __tablename__ = "llm_webhook_attempts"
    __table_args__ = (UniqueConstraint("job_id", "number", name="uq_webhook_attempts_number"),)

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    job_id: Mapped[UUID] = mapped_column(ForeignKey("llm_webhook_deliveries.job_id", ondelete="CASCADE"))
    number: Mapped[int]
    started_at: Mapped[datetime] = mapped_column(server_default=func.now())
    status_code: Mapped[int | None]
    """Null where no answer came."""
    latency_ms: Mapped[int | None]
    response: Mapped[str | None] = mapped_column(Text)
    """The first 1 KB of the answer, as text."""
    error: Mapped[str | None] = mapped_column(Text)


class Worker(Base):
    """A worker process, as of its last beat."""

    __tablename__ = "llm_workers"

    name: Mapped[str] = mapped_column(String(255), primary_key=True)
    started_at: Mapped[datetime] = mapped_column(server_default=func.now())
    seen_at: Mapped[datetime] = mapped_column(server_default=func.now())
    running: Mapped[int] = mapped_column(server_default=text("0"))
    concurrency: Mapped[int] = mapped_column(server_default=text("0"))
