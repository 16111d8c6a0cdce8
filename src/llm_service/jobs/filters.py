"""JobFilters: which jobs a list, a count or an action is about, as a value before it is SQL.

A new filter goes here (a field and its clause), into the handler of `GET /jobs`, and into the index migration.
"""

import base64
import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, Self
from uuid import UUID

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import InstrumentedAttribute

from llm_service.errors import InvalidCursor
from llm_service.jobs.binding import Bind, itself
from llm_service.jobs.limit_results import LimitResults
from llm_service.jobs.model import UNFINISHED, JobStatus, WorkflowJob

STATUS_FILTERS: dict[str, tuple[JobStatus, ...]] = {
    "all": (),
    "running": UNFINISHED,
    **{status.value: (status,) for status in JobStatus},
}
"""What `status=` accepts, and the states that it stands for; empty: no condition."""

Moment = Literal["created_at", "completed_at"]
"""Which moment of a job its time is: what windows and ranges look at, and what a list is ordered by."""

EPOCH = datetime.fromtimestamp(0, UTC)

_EQUALITIES = ("user_id", "username", "error_code", "action", "workflow_name")
_SOME: dict[str, Any] = {
    "user_id": UUID(int=0),
    **dict.fromkeys(_EQUALITIES[1:], ""),
    "after": EPOCH,
    "before": EPOCH,
}


class JobFilters(msgspec.Struct, frozen=True, kw_only=True):
    """All conditions are AND-ed; None means any. The time range is half-open: after <= the job's time < before.

    By `completed_at` there are only jobs that have ended. The jobs API asks by `created_at` alone.
    """

    status: str = "all"
    user_id: UUID | None = None
    username: str | None = None
    action: str | None = None
    workflow_name: str | None = None
    error_code: str | None = None
    after: datetime | None = None
    before: datetime | None = None
    window: LimitResults = LimitResults()
    moment: Moment = "created_at"

    @property
    def column(self) -> InstrumentedAttribute[Any]:
        """The column that holds a job's time."""
        return getattr(WorkflowJob, self.moment)  # type: ignore[no-any-return]

    def clauses(self, bind: Bind = itself) -> list[sa.ColumnElement[bool]]:
        conditions = [*self.window.clauses(self.column, bind), *self._status_clauses(bind)]
        conditions += [_is(name, getattr(self, name), bind) for name in self._equalities()]
        if self.moment == "completed_at":
            conditions.append(self.column.is_not(None))
        if self.after is not None:
            conditions.append(self.column >= bind("after", self.after, self.column.type))
        if self.before is not None:
            conditions.append(self.column < bind("before", self.before, self.column.type))
        return conditions

    def shape(self) -> Self:
        """This question with other values: what its SQL depends on when the values stand under their names."""
        given = {name: some for name, some in _SOME.items() if getattr(self, name) is not None}
        window = LimitResults() if self.window.since is None else LimitResults(since=EPOCH)
        return msgspec.structs.replace(self, window=window, **given)

    def values(self) -> dict[str, Any]:
        """The values under their names, as `clauses(by_name)` has them."""
        return {
            "since": self.window.since,
            "after": self.after,
            "before": self.before,
            "status": [self.status],
            **{name: [getattr(self, name)] for name in _EQUALITIES},
        }

    def _status_clauses(self, bind: Bind) -> list[sa.ColumnElement[bool]]:
        states = STATUS_FILTERS[self.status]
        if not states:
            return []
        if self.moment == "completed_at" and set(states) <= set(UNFINISHED):
            return [sa.false()]  # said, since the planner does not know that these have no end
        status = WorkflowJob.status
        if self._leading() == "status":
            return [_is("status", states[0].value, bind)]
        # As literals, so that the planner can match the partial index on unfinished jobs.
        literals = [sa.literal_column(f"'{state.value}'", status.type) for state in states]
        return [status == literals[0] if len(literals) == 1 else status.in_(literals)]

    def order(self) -> list[sa.ColumnElement[Any]]:
        """Newest first, after a column that has one value here and so makes no difference to the rows.

        PostgreSQL expects matches to be spread evenly over time: to find jobs of a workflow that is no longer
        used it would read the whole list backwards. With a filter's column leading the order, and a condition
        that does not tell the planner of the one value, only the index of that column is in order.
        """
        newest_first: list[sa.ColumnElement[Any]] = [self.column.desc(), WorkflowJob.id.desc()]
        leading = self._leading()
        return newest_first if leading is None else [getattr(WorkflowJob, leading), *newest_first]

    def _leading(self) -> str | None:
        states = STATUS_FILTERS[self.status]
        if states and set(states) <= set(UNFINISHED):
            return None  # few rows, with an index of their own that is newest first
        return next(iter([*self._equalities(), *(["status"] if states else [])]), None)

    def _equalities(self) -> list[str]:
        """The exact-match filters that are set; the one that is likely to leave the fewest rows first."""
        return [name for name in _EQUALITIES if getattr(self, name) is not None]

    def fingerprint(self, limit_results: str) -> bytes:
        """Eight bytes that differ when the question differs. A window counts as its words, not as its start."""
        names = [name for name in self.__struct_fields__ if name not in {"window", "moment"}]
        question: list[Any] = [limit_results, *(getattr(self, name) for name in names)]
        if self.moment != "created_at":
            question.append(self.moment)  # cursors from before there was a choice go on being good
        return hashlib.blake2b(msgspec.json.encode(question), digest_size=8).digest()


def _is(name: str, wanted: object, bind: Bind) -> sa.ColumnElement[bool]:
    column: InstrumentedAttribute[Any] = getattr(WorkflowJob, name)
    return column == sa.any_(bind(name, [wanted], ARRAY(column.type)))


class Cursor(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A place in a list, newest first: the sort key of the last row shown and the question it belongs to."""

    microseconds: int
    job_id: bytes
    fingerprint: bytes

    @classmethod
    def after(cls, moment: datetime, job_id: UUID, fingerprint: bytes) -> Self:
        return cls((moment - EPOCH) // timedelta(microseconds=1), job_id.bytes, fingerprint)

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

    def clause(self, column: InstrumentedAttribute[Any], bind: Bind = itself) -> sa.ColumnElement[bool]:
        """What comes after this place in a list that is ordered by a time."""
        moment, job_id = self.position
        here = sa.tuple_(
            bind("place_moment", moment, column.type), bind("place_id", job_id, WorkflowJob.id.type)
        )
        return sa.tuple_(column, WorkflowJob.id) < here

    def values(self) -> dict[str, Any]:
        """The values under their names, as `clause(column, by_name)` has them."""
        moment, job_id = self.position
        return {"place_moment": moment, "place_id": job_id}
