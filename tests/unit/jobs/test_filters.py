"""JobFilters and Cursor: a question as a value, and a place in its answer."""

import base64
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import msgspec
import pytest
import sqlalchemy as sa
from hypothesis import example, given
from hypothesis import strategies as st
from sqlalchemy.dialects import postgresql

from llm_service.errors import InvalidCursor
from llm_service.jobs.filters import STATUS_FILTERS, Cursor, JobFilters
from llm_service.jobs.limit_results import LimitResults

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SOMEBODY = UUID("6f1c6f80-7d2f-4c4c-9a1e-0d6f1c9a1b2c")
FINGERPRINT = JobFilters().fingerprint("")
moments = st.datetimes(timezones=st.just(UTC))

QUESTIONS: list[tuple[str, dict[str, Any]]] = [
    ("", {}),
    ("25", {}),
    ("50", {}),
    ("Today", {}),
    ("7 Days", {}),
    ("30 Days", {}),
    *(("", {"status": status}) for status in STATUS_FILTERS if status != "all"),
    ("", {"user_id": SOMEBODY}),
    ("", {"username": "jane"}),
    ("", {"action": "jane"}),
    ("", {"workflow_name": "jane"}),
    ("", {"error_code": "jane"}),
    ("", {"username": str(SOMEBODY)}),
    ("", {"username": ""}),
    ("", {"username": "Jane"}),
    ("", {"username": "jane", "action": "jane"}),
    ("", {"action": "jane", "workflow_name": "jane"}),
    ("", {"after": NOW}),
    ("", {"before": NOW}),
    ("", {"after": NOW + timedelta(microseconds=1)}),
    ("", {"after": NOW, "before": NOW + timedelta(days=1)}),
    ("", {"moment": "completed_at"}),
    ("Today", {"moment": "completed_at"}),
    ("", {"moment": "completed_at", "username": "jane"}),
]


def where(filters: JobFilters) -> str:
    query: sa.Select[Any] = sa.select(sa.literal_column("1")).where(*filters.clauses())
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
    text = str(query.compile(dialect=dialect, compile_kwargs={"literal_binds": True}))
    return (
        text.split("WHERE ")[1].replace("llm_workflow_jobs.", "").replace(" \n", " ")
        if "WHERE" in text
        else ""
    )


def test_the_status_words_are_those_of_the_contract() -> None:
    assert set(STATUS_FILTERS) == {
        "all",
        "running",
        "completed",
        "failed",
        "pending",
        "processing",
        "cancelled",
    }


@pytest.mark.parametrize(
    ("status", "condition"),
    [
        ("all", ""),
        ("running", "status IN ('pending', 'processing')"),
        ("pending", "status = 'pending'"),
        ("processing", "status = 'processing'"),
        ("completed", "status = ANY (ARRAY['completed'])"),
        ("failed", "status = ANY (ARRAY['failed'])"),
        ("cancelled", "status = ANY (ARRAY['cancelled'])"),
    ],
)
def test_a_status_is_a_condition_on_the_states_it_stands_for(status: str, condition: str) -> None:
    assert where(JobFilters(status=status)) == condition


def test_all_conditions_are_anded_and_the_range_is_half_open() -> None:
    everything = JobFilters(
        status="failed",
        user_id=SOMEBODY,
        username="jane",
        action="generate contacts",
        workflow_name="completion",
        error_code="ModelTimeout",
        after=NOW,
        before=NOW + timedelta(days=1),
    )
    assert set(where(everything).split(" AND ")) == {
        "status = 'failed'",
        f"user_id = ANY (ARRAY['{SOMEBODY}'])",
        "username = ANY (ARRAY['jane'])",
        "action = ANY (ARRAY['generate contacts'])",
        "workflow_name = ANY (ARRAY['completion'])",
        "error_code = ANY (ARRAY['ModelTimeout'])",
        "created_at >= '2026-03-01 12:00:00+00:00'",
        "created_at < '2026-03-02 12:00:00+00:00'",
    }


@pytest.mark.parametrize(
    ("fields", "leading"),
    [
        ({}, None),
        ({"status": "failed"}, "status"),
        ({"status": "pending"}, None),
        ({"status": "running", "username": "jane"}, None),
        ({"status": "failed", "username": "jane"}, "username"),
        ({"workflow_name": "completion", "action": "jane", "user_id": SOMEBODY}, "user_id"),
        ({"workflow_name": "completion"}, "workflow_name"),
        ({"after": NOW}, None),
        ({"moment": "completed_at"}, None),
        ({"moment": "completed_at", "status": "failed", "username": "jane"}, "username"),
        ({"moment": "completed_at", "status": "cancelled"}, "status"),
    ],
)
def test_the_order_is_newest_first_behind_a_column_with_one_value(
    fields: dict[str, Any], leading: str | None
) -> None:
    filters = JobFilters(**fields)
    names = [
        str(column).removeprefix("WorkflowJob.").removeprefix("llm_workflow_jobs.")
        for column in filters.order()
    ]
    assert names == [*([leading] if leading else []), f"{filters.moment} DESC", "id DESC"]
    assert leading is None or f"{leading} = ANY" in where(filters), (
        "else another index could be read in that order"
    )


def test_a_window_is_a_condition_too() -> None:
    window = LimitResults.parse("Today", NOW)
    assert where(JobFilters(window=window)) == "created_at >= '2026-03-01 00:00:00+00:00'"


def test_by_the_time_of_the_end_nothing_looks_at_the_beginning() -> None:
    window = LimitResults.parse("Today", NOW)
    filters = JobFilters(status="failed", window=window, before=NOW, moment="completed_at")
    assert where(filters) == (
        "completed_at >= '2026-03-01 00:00:00+00:00' AND status = ANY (ARRAY['failed'])"
        " AND completed_at IS NOT NULL AND completed_at < '2026-03-01 12:00:00+00:00'"
    )
    assert where(JobFilters(moment="completed_at")) == "completed_at IS NOT NULL"
    for status in ("running", "pending", "processing"):
        assert "false" in where(JobFilters(status=status, moment="completed_at")), "these have no end"


def test_a_question_by_creation_has_the_fingerprint_it_always_had() -> None:
    """Cursors that clients hold are good across a release."""
    assert JobFilters().fingerprint("").hex() == "5f0034d71f8bca0b"
    assert JobFilters(status="failed", username="jane").fingerprint("7 Days").hex() == "09df39303d33ee0c"


def test_different_questions_have_different_fingerprints() -> None:
    asked: dict[bytes, tuple[str, dict[str, Any]]] = {}
    for words, fields in QUESTIONS:
        fingerprint = JobFilters(**fields).fingerprint(words)
        assert fingerprint not in asked, f"{(words, fields)} looks like {asked[fingerprint]}"
        asked[fingerprint] = (words, fields)


@given(st.sampled_from(QUESTIONS))
def test_the_same_question_has_the_same_fingerprint(question: tuple[str, dict[str, Any]]) -> None:
    words, fields = question
    assert JobFilters(**fields).fingerprint(words) == JobFilters(**dict(fields)).fingerprint(words)
    assert len(JobFilters(**fields).fingerprint(words)) == 8


def test_a_window_keeps_its_fingerprint_while_time_passes() -> None:
    earlier, later = (
        JobFilters(window=LimitResults.parse("7 Days", now)) for now in (NOW, NOW + timedelta(hours=1))
    )
    assert earlier.fingerprint("7 Days") == later.fingerprint("7 Days")


@given(moments, st.uuids(), st.binary(min_size=8, max_size=8))
@example(datetime.min.replace(tzinfo=UTC), UUID(int=0), FINGERPRINT)
@example(datetime.max.replace(tzinfo=UTC), UUID(int=2**128 - 1), FINGERPRINT)
@example(datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC), SOMEBODY, FINGERPRINT)
@example(datetime(1970, 1, 1, tzinfo=UTC), SOMEBODY, FINGERPRINT)
@example(datetime(1883, 11, 18, 12, 3, 58, 1, tzinfo=UTC), SOMEBODY, FINGERPRINT)
def test_a_cursor_comes_back_as_it_was_to_the_microsecond(
    at: datetime, job_id: UUID, fingerprint: bytes
) -> None:
    text = Cursor.after(at, job_id, fingerprint).text()
    assert Cursor.parse(text, fingerprint).position == (at, job_id)
    assert text.isascii()
    assert text.replace("-", "").replace("_", "").isalnum(), "can stand in a query string as it is"
    assert len(text) <= 60


@given(
    moments.map(lambda at: at.replace(year=min(max(at.year, 2), 9998), tzinfo=None)),
    st.integers(-14 * 60, 14 * 60),
)
def test_a_cursor_is_a_moment_whatever_zone_it_was_written_in(local: datetime, minutes: int) -> None:
    at = local.replace(tzinfo=timezone(timedelta(minutes=minutes)))
    assert Cursor.after(at, SOMEBODY, FINGERPRINT) == Cursor.after(at.astimezone(UTC), SOMEBODY, FINGERPRINT)


def test_a_cursor_is_refused_under_another_question() -> None:
    text = Cursor.after(NOW, SOMEBODY, FINGERPRINT).text()
    for words, fields in QUESTIONS[1:]:
        with pytest.raises(InvalidCursor, match="other filters"):
            Cursor.parse(text, JobFilters(**fields).fingerprint(words))


@pytest.mark.parametrize("junk", ["!!!!", "    ", "\n\r\n\t", "++//", "\x00" * 4])
def test_a_cursor_is_taken_unchanged_alone(junk: str) -> None:
    text = Cursor.after(NOW, SOMEBODY, FINGERPRINT).text()
    for odd in (junk + text, text[:8] + junk + text[8:], text + junk):
        with pytest.raises(InvalidCursor):
            Cursor.parse(odd, FINGERPRINT)


def packed(value: object) -> str:
    return base64.urlsafe_b64encode(msgspec.msgpack.encode(value)).rstrip(b"=").decode()


HOSTILE = {
    "no base64": "!!!!",
    "spaces": "    ",
    "the other alphabet": "++//",
    "not ASCII": "ü" * 8,
    "a lone surrogate": "\ud800",
    "NUL": "\x00",
    "one character": "A",
    "no msgpack": base64.urlsafe_b64encode(b"\xc1" * 12).decode(),
    "nothing": base64.urlsafe_b64encode(b"").decode() + "====",
    "a number": packed(1),
    "a map": packed({"microseconds": 1}),
    "too short": packed([1, b"\x00" * 16]),
    "too long": packed([1, b"\x00" * 16, FINGERPRINT, 1]),
    "text for an id": packed([1, "0" * 16, FINGERPRINT]),
    "an id of 15 bytes": packed([1, b"\x00" * 15, FINGERPRINT]),
    "an id of 17 bytes": packed([1, b"\x00" * 17, FINGERPRINT]),
    "a float": packed([1.5, b"\x00" * 16, FINGERPRINT]),
    "null": packed([None, b"\x00" * 16, FINGERPRINT]),
    "after the last year": packed([2**63 - 1, b"\x00" * 16, FINGERPRINT]),
    "the largest number": packed([2**64 - 1, b"\x00" * 16, FINGERPRINT]),
    "before the first year": packed([-(2**63), b"\x00" * 16, FINGERPRINT]),
    "year 10000": packed([253_402_300_800_000_000, b"\x00" * 16, FINGERPRINT]),
    "year 0": packed([-62_135_596_800_000_001, b"\x00" * 16, FINGERPRINT]),
    "no fingerprint": packed([1, b"\x00" * 16, b""]),
    "deep": base64.urlsafe_b64encode(b"\x91" * 100_000).decode(),
    "deep behind a cursor": base64.urlsafe_b64encode(b"\x94\x01\xc4\x10" + bytes(16) + b"\xc4\x08" + FINGERPRINT + b"\x91" * 100_000).decode(),
    "huge": "A" * 1_000_000,
    "a length that is not there": base64.urlsafe_b64encode(b"\x93\x01\xc6\xff\xff\xff\xff").decode(),
}  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_what_is_no_cursor_is_an_invalid_cursor(text: str) -> None:
    with pytest.raises(InvalidCursor) as refused:
        Cursor.parse(text, FINGERPRINT)
    assert refused.value.context == {"cursor": text[:100]}


@given(st.one_of(st.text(), st.binary().map(lambda raw: base64.urlsafe_b64encode(raw).decode())))
def test_no_text_makes_another_error(text: str) -> None:
    with pytest.raises(InvalidCursor):
        Cursor.parse(text, FINGERPRINT)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.binary() | st.text(), st.lists
    )
)
def test_no_value_makes_another_error(value: object) -> None:
    with pytest.raises(InvalidCursor):
        Cursor.parse(packed(value), FINGERPRINT)


@given(st.integers(-(2**63), 2**64 - 1), st.binary(min_size=14, max_size=18))
def test_a_forged_position_is_a_time_or_refused(microseconds: int, job_id: bytes) -> None:
    try:
        at, _ = Cursor.parse(packed([microseconds, job_id, FINGERPRINT]), FINGERPRINT).position
    except InvalidCursor:
        return
    assert at.tzinfo is UTC
    assert len(job_id) == 16
