"""Reads the query string of `GET /jobs`: each parameter once, each wrong value its own error."""

import re
from datetime import UTC, datetime
from typing import Any, get_args
from uuid import UUID

import msgspec
from litestar.datastructures import MultiDict

from llm_service.api.body import refuse_unstorable_text
from llm_service.errors import (
    ConflictingFilters,
    InvalidCursor,
    InvalidStatusFilter,
    InvalidTimeRange,
    InvalidUserID,
    ValidationError,
)
from llm_service.jobs.filters import STATUS_FILTERS, Cursor, JobFilters
from llm_service.jobs.limit_results import LimitResults
from llm_service.jobs.store.listing import CountMode

DEFAULT_LIMIT = 50
MAX_LIMIT = 200
MAX_OFFSET = 100_000
MAX_CURSOR = 200

_DIGITS = re.compile(r"[0-9]{1,9}")
_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
_LENGTHS = {"username": 255, "action": 255, "workflow_name": 100, "error_code": 50}


class JobsQuery(msgspec.Struct, frozen=True, kw_only=True):
    filters: JobFilters
    limit: int
    offset: int
    cursor: Cursor | None
    count: CountMode
    fingerprint: bytes


def read_jobs_query(params: MultiDict[str], now: datetime) -> JobsQuery:
    """`now` is the database's time. Raises the 400s and 422s of the contract."""
    given = _once_each(params)
    limit_results = given.get("limit_results", "")
    window = LimitResults.parse(limit_results, now)
    after, before = _time_range(given, window)
    exact: dict[str, Any] = {name: given[name] for name in _LENGTHS if given.get(name)}
    filters = JobFilters(
        status=_status(given),
        user_id=_user_id(given.get("user_id")),
        after=after,
        before=before,
        window=window,
        **exact,
    )
    fingerprint = filters.fingerprint(limit_results)
    return JobsQuery(
        filters=filters,
        limit=window.limit(_integer(given, "limit", DEFAULT_LIMIT, 1, MAX_LIMIT)),
        offset=_integer(given, "offset", 0, 0, MAX_OFFSET),
        cursor=_cursor(given, fingerprint),
        count=_count(given),
        fingerprint=fingerprint,
    )


def _once_each(params: MultiDict[str]) -> dict[str, str]:
    given: dict[str, str] = {}
    for name, value in params.multi_items():
        if name in given and given[name] != value:
            raise ValidationError("may be given once", ["query", name])
        refuse_unstorable_text(value, ["query", name])
        if (most := _LENGTHS.get(name)) is not None and len(value) > most:
            raise ValidationError(f"must have at most {most} characters", ["query", name])
        given[name] = value
    return given


def _status(given: dict[str, str]) -> str:
    named = {given[name] for name in ("status", "status_filter") if given.get(name)}
    if len(named) > 1:
        raise ConflictingFilters("status and status_filter are two names of one filter; give one of them.")
    status = named.pop() if named else "all"
    if status not in STATUS_FILTERS:
        allowed = list(STATUS_FILTERS)
        raise InvalidStatusFilter(
            f"status must be one of: {', '.join(allowed)}.", status=status, valid_values=allowed
        )
    return status


def _user_id(text: str | None) -> UUID | None:
    if not text:
        return None
    try:
        return msgspec.convert(text, UUID)
    except msgspec.ValidationError:
        raise InvalidUserID("user_id must be a UUID.", user_id=text) from None


def _integer(given: dict[str, str], name: str, default: int, least: int, most: int) -> int:
    text = given.get(name)
    if text is None:
        return default
    if not _DIGITS.fullmatch(text) or not least <= int(text) <= most:
        raise ValidationError(f"must be an integer from {least} to {most}", ["query", name])
    return int(text)


def _time_range(given: dict[str, str], window: LimitResults) -> tuple[datetime | None, datetime | None]:
    after = _moment(given, "created_after")
    before = _moment(given, "created_before")
    if window.since is not None and (after is not None or before is not None):
        raise ConflictingFilters(
            "limit_results is a time window; it can't be combined with created_after or created_before."
        )
    if after is not None and before is not None and after >= before:
        raise InvalidTimeRange("created_after must be earlier than created_before.")
    return after, before


def _moment(given: dict[str, str], name: str) -> datetime | None:
    text = given.get(name)
    if not text:
        return None
    # A plus that was not percent-encoded arrives as a space.
    candidate = text.replace(" ", "+") if text[-6:-5] == " " else text
    try:
        if _RFC3339.fullmatch(candidate):
            return msgspec.convert(candidate.upper(), datetime).astimezone(UTC)
    except (msgspec.ValidationError, OverflowError):
        pass
    raise InvalidTimeRange(
        f"{name} must be RFC 3339 with an offset, e.g. 2026-01-31T00:00:00Z (a + must be sent as %2B).",
        **{name: text},
    )


def _cursor(given: dict[str, str], fingerprint: bytes) -> Cursor | None:
    text = given.get("cursor")
    if not text:
        return None
    if "offset" in given:
        raise ConflictingFilters("cursor and offset are two ways of paging; give one of them.")
    if len(text) > MAX_CURSOR or not text.isascii():
        raise InvalidCursor("cursor must be a next_cursor of an earlier answer, unchanged.", cursor=text)
    return Cursor.parse(text, fingerprint)


def _count(given: dict[str, str]) -> CountMode:
    text = given.get("count") or "capped"
    for mode in get_args(CountMode):
        if text == mode:
            return mode  # type: ignore[no-any-return]
    raise ValidationError("must be capped, exact or none", ["query", "count"])
