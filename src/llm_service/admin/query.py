"""What the LLM Queue page shows, as it stands in the page's address: read, said in words, written again."""

import functools
import re
from datetime import UTC, datetime
from typing import Any, Self
from urllib.parse import parse_qsl, urlencode
from uuid import UUID

import msgspec

from llm_service.jobs.filters import STATUS_FILTERS, JobFilters, Moment
from llm_service.jobs.limit_results import LimitResults

QUEUE = "/admin/queue"
WINDOW_PAGE = 50
"""Rows fetched at once where the limit is a time window."""

LIMITS = {
    "25": "25 records",
    "50": "50 records",
    "100": "100 records",
    "200": "200 records",
    "Today": "Today",
    "7 Days": "Last 7 Days",
    "30 Days": "Last 30 Days",
}
"""The values of `limit` and their labels."""

STATUSES = {
    "all": "All",
    "running": "Running",
    "completed": "Completed",
    "failed": "Failed",
    "pending": "Pending",
    "processing": "Processing",
    "cancelled": "Cancelled",
}
"""The values of `status` and their labels; `running` is pending or processing."""

TIMES: dict[str, tuple[str, Moment]] = {
    "created": ("Created", "created_at"),
    "finished": ("Finished", "completed_at"),
}
"""The values of `time`, their labels, and the moment of a job that windows, charts and order go by then."""

TEXTS = {"action": 255, "user": 255, "workflow": 100, "error": 50}
"""The exact-match filters on text and the longest value of each."""

_SINCE = {"Today": "since 00:00 UTC", "7 Days": "in the last 7 days", "30 Days": "in the last 30 days"}
_MOMENT = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d(:\d\d(\.\d{1,6})?)?([Zz]|[+ -]\d\d:\d\d)", re.ASCII)
_MAX_QUERY = 8_000


class PageQuery(msgspec.Struct, frozen=True, kw_only=True):
    """The state of the page. `notices` says, for people, what was dropped from the address and why."""

    status: str = "all"
    limit: str = "25"
    time: str = "created"
    action: str | None = None
    user: str | None = None
    user_id: UUID | None = None
    workflow: str | None = None
    error: str | None = None
    after: datetime | None = None
    before: datetime | None = None
    q: UUID | None = None
    """A job to go to. Not a filter."""
    notices: tuple[str, ...] = ()

    @property
    def is_window(self) -> bool:
        """Whether the limit is a time window: then there is paging, else exactly the newest N are shown."""
        return not self.limit.isdigit()

    @property
    def page_size(self) -> int:
        return WINDOW_PAGE if self.is_window else int(self.limit)

    @property
    def is_filtered(self) -> bool:
        return self.url(limit=None) != QUEUE or self.is_window

    def filters(self, now: datetime) -> JobFilters:
        """`now` is timezone-aware, in UTC, from the database's clock."""
        return JobFilters(
            status=self.status,
            user_id=self.user_id,
            username=self.user,
            action=self.action,
            workflow_name=self.workflow,
            error_code=self.error,
            after=self.after,
            before=self.before,
            window=LimitResults.parse(self.limit, now),
            moment=TIMES[self.time][1],
        )

    def words(self) -> str:
        """The filter as a phrase, e.g. `failed jobs of jane_smith, action "generate contacts", since 00:00 UTC`."""
        subject = "jobs" if self.status == "all" else f"{self.status} jobs"
        if self.user is not None:
            subject += f" of {self.user}"
        parts = [subject]
        for name, value in (
            ("user id", self.user_id),
            ("action", self.action),
            ("workflow", self.workflow),
            ("error", self.error),
        ):
            if value is not None:
                parts.append(f'{name} "{value}"')
        return ", ".join([*parts, *self._times()])

    def _times(self) -> list[str]:
        times = [_SINCE[self.limit]] if self.is_window else []
        if self.after is not None:
            times.append(f"from {self.after:%Y-%m-%d %H:%M:%S} UTC")
        if self.before is not None:
            times.append(f"before {self.before:%Y-%m-%d %H:%M:%S} UTC")
        if self.time == "created":
            return times
        return [f"finished {times[0]}", *times[1:]] if times else ["by the time they finished"]

    def text(self, **changes: Any) -> str:
        """The query string of this state with `changes` applied; defaults are left out. None resets a name."""
        return _written(self.changed(**changes))

    def url(self, **changes: Any) -> str:
        text = self.text(**changes)
        return f"{QUEUE}?{text}" if text else QUEUE

    def changed(self, **changes: Any) -> Self:
        """This state with `changes`; None resets a name to its default."""
        given = {name: _DEFAULTS[name] if value is None else value for name, value in changes.items()}
        return msgspec.structs.replace(self, **given, notices=())


_NAMES = ("status", "limit", "time", "action", "user", "user_id", "workflow", "error", "after", "before", "q")
_DEFAULTS: dict[str, Any] = {
    name: default
    for name, default in zip(PageQuery.__struct_fields__, PageQuery.__struct_defaults__, strict=True)
    if name in _NAMES
}


@functools.lru_cache(maxsize=2048)
def _written(state: PageQuery) -> str:
    """Kept, since a list writes five addresses for each of its rows, and the same ones at the next look."""
    pairs: list[tuple[str, str]] = []
    for name in _NAMES:
        value = getattr(state, name)
        if value == _DEFAULTS[name]:
            continue
        pairs.append((name, _moment_text(value) if isinstance(value, datetime) else str(value)))
    return urlencode(pairs)


def read_query(text: str) -> PageQuery:
    """The state that a query string describes. What is unknown, double or wrong is dropped and noted; never raises."""
    notices: list[str] = []
    if len(text) > _MAX_QUERY:
        return PageQuery(notices=("The address was too long; its filters were dropped.",))
    given: dict[str, Any] = {}
    for name, raw in parse_qsl(text, keep_blank_values=True, errors="replace"):
        if not raw or name in _PASSED_OVER:
            continue
        if name not in _NAMES:
            notices.append(f"There is no filter {_quoted(name)}; it was dropped.")
        elif name in given:
            notices.append(f"{_LABELS[name]} was given twice; the first one counts.")
        else:
            value = _read(name, raw)
            if value is None:
                notices.append(
                    f"{_LABELS[name]} {_quoted(raw)} is not possible; it was dropped. {_HELP[name]}"
                )
            else:
                given[name] = value
    if "after" in given and "before" in given and given["after"] >= given["before"]:
        del given["after"], given["before"]
        notices.append("The time range ended before it began; it was dropped.")
    return PageQuery(**given, notices=tuple(notices[:5]))


_PASSED_OVER = frozenset({"cursor", "csrf_token", "part"})
"""Parameters of the page that are not part of the filter."""

_LABELS = {
    "status": "Status",
    "limit": "Limit results",
    "time": "Time",
    "action": "Action",
    "user": "User",
    "user_id": "User id",
    "workflow": "Workflow",
    "error": "Error",
    "after": "The start",
    "before": "The end",
    "q": "Job id",
}
_HELP = {
    "status": f"Possible are {', '.join(STATUSES)}.",
    "limit": f"Possible are {', '.join(LIMITS)}.",
    "time": f"Possible are {', '.join(TIMES)}.",
    "user_id": "It must be a UUID.",
    "q": "A job is found by its whole id, a UUID.",
    "after": "It must be a time such as 2026-01-31T00:00:00Z.",
    "before": "It must be a time such as 2026-01-31T00:00:00Z.",
} | {name: f"It may have at most {most} characters." for name, most in TEXTS.items()}


def _read(name: str, raw: str) -> Any | None:
    if name == "status":
        return raw if raw in STATUS_FILTERS else None
    if name == "limit":
        return raw if raw in LIMITS else None
    if name == "time":
        return raw if raw in TIMES else None
    if name in ("user_id", "q"):
        return _uuid(raw.strip())
    if name in ("after", "before"):
        return _moment(raw)
    storable = "\0" not in raw and not any("\ud800" <= letter <= "\udfff" for letter in raw)
    return raw if storable and len(raw) <= TEXTS[name] else None


def _uuid(raw: str) -> UUID | None:
    try:
        return msgspec.convert(raw, UUID)
    except msgspec.ValidationError:
        return None


def _moment(raw: str) -> datetime | None:
    if not _MOMENT.fullmatch(raw):
        return None
    try:
        return datetime.fromisoformat(raw.upper().replace(" ", "+")).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _moment_text(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _quoted(raw: str) -> str:
    return f"“{raw[:60]}…”" if len(raw) > 60 else f"“{raw}”"
