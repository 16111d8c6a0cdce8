"""JobFilters: which jobs a list, a count or an action is about, as a value before it is SQL.

A new filter goes here (a field and its clause), into the handler of `GET /jobs`, and into the index migration.
"""

import base64
import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any, Self
from uuid import UUID

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import InstrumentedAttribute

from llm_service.errors import InvalidCursor
from llm_service.jobs.limit_results import LimitResults
from llm_service.jobs.model import UNFINISHED, JobStatus, WorkflowJob

STATUS_FILTERS: dict[str, tuple[JobStatus, ...]] = {
    "all": (),
    "running": UNFINISHED,
    **{status.value: (status,) for status in JobStatus},
}
"""What `status=` accepts, and the states that it stands for; empty: no condition."""

EPOCH = datetime.fromtimestamp(0, UTC)


class JobFilters(msgspec.Struct, frozen=True, kw_only=True):
    """All conditions are AND-ed; None means any. The time range is half-open: after <= created_at < before."""

    status: str = "all"
    user_id: UUID | None = None
    username: str | None = None
    action: str | None = None
    workflow_name: str | None = None
    error_code: str | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None
    window: LimitResults = LimitResults()

    def clauses(self) -> list[sa.ColumnElement[bool]]:
        job = WorkflowJob
        conditions = [*self.window.clauses(job.created_at), *self._status_clauses()]
        conditions += [_is(getattr(job, name), getattr(self, name)) for name in self._equalities()]
        if self.created_after is not None:
            conditions.append(job.created_at >= self.created_after)
        if self.created_before is not None:
            conditions.append(job.created_at < self.created_before)
        return conditions

    def _status_clauses(self) -> list[sa.ColumnElement[bool]]:
        states = STATUS_FILTERS[self.status]
        if not states:
            return []
        status = WorkflowJob.status
        if self._leading() == "status":
            return [_is(status, states[0].value)]
        # As literals, so that the planner can match the partial index on unfinished jobs.
        literals = [sa.literal(state.value, literal_execute=True) for state in states]
        return [status == literals[0] if len(literals) == 1 else status.in_(literals)]

    def order(self) -> list[sa.ColumnElement[Any]]:
        """Newest first, after a column that has one value here and so makes no difference to the rows.

        PostgreSQL expects matches to be spread evenly over time: to find jobs of a workflow that is no longer
        used it would read the whole list backwards. With a filter's column leading the order, and a condition
        that does not tell the planner of the one value, only the index of that column is in order.
        """
        newest_first: list[sa.ColumnElement[Any]] = [WorkflowJob.created_at.desc(), WorkflowJob.id.desc()]
        leading = self._leading()
        return newest_first if leading is None else [getattr(WorkflowJob, leading), *newest_first]

    def _leading(self) -> str | None:
        states = STATUS_FILTERS[self.status]
        if states and set(states) <= set(UNFINISHED):
            return None  # few rows, with an index of their own that is newest first
        return next(iter([*self._equalities(), *(["status"] if states else [])]), None)

    def _equalities(self) -> list[str]:
        """The exact-match filters that are set; the one that is likely to leave the fewest rows first."""
        names = ("user_id", "username", "error_code", "action", "workflow_name")
        return [name for name in names if getattr(self, name) is not None]

    def fingerprint(self, limit_results: str) -> bytes:
        """Eight bytes that differ when the question differs. A window counts as its words, not as its start."""
        question: list[Any] = [
            limit_results,
            *(getattr(self, name) for name in self.__struct_fields__ if name != "window"),
        ]
        return hashlib.blake2b(msgspec.json.encode(question), digest_size=8).digest()


def _is(column: InstrumentedAttribute[Any], wanted: object) -> sa.ColumnElement[bool]:
    return column == sa.any_(sa.literal([wanted], ARRAY(column.type)))


class Cursor(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A place in a list, newest first: the sort key of the last row shown and the question it belongs to."""

    microseconds: int
    job_id: bytes
    fingerprint: bytes

    @classmethod
    def after(cls, created_at: datetime, job_id: UUID, fingerprint: bytes) -> Self:
        return cls((created_at - EPOCH) // timedelta(microseconds=1), job_id.bytes, fingerprint)

    @classmethod
    def parse(cls, text: str, fingerprint: bytes) -> Self:
        """Raises `InvalidCursor` for text that is no cursor, or one that was made under other filters."""
        try:
            raw = base64.b64decode(
                text.encode("ascii") + b"=" * (-len(text) % 4), altchars=b"-_", validate=True
            )
            cursor = msgspec.msgpack.decode(raw, type=cls)
            _ = cursor.position
        except (ValueError, msgspec.DecodeError, OverflowError):
            raise InvalidCursor(
                "cursor must be a next_cursor of an earlier answer, unchanged.", cursor=text
            ) from None
        if cursor.fingerprint != fingerprint:
            raise InvalidCursor("cursor belongs to a list with other filters; start without it.", cursor=text)
        return cursor

    def text(self) -> str:
        return base64.urlsafe_b64encode(msgspec.msgpack.encode(self)).rstrip(b"=").decode()

    @property
    def position(self) -> tuple[datetime, UUID]:
        return EPOCH + timedelta(microseconds=self.microseconds), UUID(bytes=self.job_id)

    def clause(self) -> sa.ColumnElement[bool]:
        created_at, job_id = self.position
        return sa.tuple_(WorkflowJob.created_at, WorkflowJob.id) < sa.tuple_(
            sa.literal(created_at), sa.literal(job_id)
        )
