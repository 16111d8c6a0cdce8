"""The tables of the queue page: who is logged in, who tried in vain, what was done."""

import enum
from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, Identity, Index, String, Text, func, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column
from sqlalchemy.types import Uuid

from llm_service.jobs.model import Base

__all__ = [
    "AdminAudit",
    "AdminLogin",
    "AdminSession",
    "Base",
]  # with Base: all tables are in its metadata then


class Role(enum.StrEnum):
    """What a session may do: that of the password it was opened with."""

    ADMIN = "admin"
    """Sees everything and does what the page can do."""
    READER = "reader"
    """Sees the same and changes nothing."""


class AdminSession(Base):
    """A browser that is logged in. The token itself is in its cookie alone."""

    __tablename__ = "llm_admin_sessions"

    token_hash: Mapped[bytes] = mapped_column(primary_key=True)
    """SHA-256 of the token, keyed with the role's password: a new password ends every session of its role."""
    role: Mapped[str] = mapped_column(String(16), server_default=text("'admin'"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    last_seen_at: Mapped[datetime] = mapped_column(server_default=func.now())
    """Moved on at most once a minute."""
    expires_at: Mapped[datetime]
    """last_seen_at and the idle time."""


class AdminAudit(Base):
    """One action on jobs, in one request or in several. Written before it begins; its numbers grow with each batch."""

    __tablename__ = "llm_admin_audit"
    __table_args__ = (Index("idx_admin_audit_at", text("at DESC")),)

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    at: Mapped[datetime] = mapped_column(server_default=func.now())
    session: Mapped[str] = mapped_column(String(16))
    """The beginning of the session's token_hash, as hex: tells sessions apart and opens none."""
    action: Mapped[str] = mapped_column(String(50))
    filter: Mapped[str | None] = mapped_column(Text)
    """The page's query string; null for a selection."""
    job_ids: Mapped[list[UUID]] = mapped_column(ARRAY(Uuid), server_default=text("'{}'"))
    """The selection, or the first 500 jobs that a filter led to."""
    matched: Mapped[int]
    """How many jobs it was meant for."""
    done: Mapped[int] = mapped_column(server_default=text("0"))
    skipped: Mapped[int] = mapped_column(server_default=text("0"))
    """Gone, or in a state that the action is not for."""
    failed: Mapped[int] = mapped_column(server_default=text("0"))
    moved_at: Mapped[datetime | None]
    """When a batch was last done, or another request began to go on with it."""
    ended_at: Mapped[datetime | None]
    """Null while it runs, and for ever when it was broken off: the process died in it, or nobody went on with it."""
    request_id: Mapped[str | None] = mapped_column(String(64))


class AdminLogin(Base):
    """A wrong password. Kept for a day, to slow down who goes on trying."""

    __tablename__ = "llm_admin_logins"
    __table_args__ = (
        Index("idx_admin_logins_at", "at"),
        Index("idx_admin_logins_peer", "peer", "at"),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    at: Mapped[datetime] = mapped_column(server_default=func.now())
    peer: Mapped[str] = mapped_column(String(64))
    """The address that the try came from."""
