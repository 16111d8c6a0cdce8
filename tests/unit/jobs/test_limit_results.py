"""LimitResults: exactly seven uses, and nothing else."""

from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from hypothesis import example, given
from hypothesis import strategies as st
from sqlalchemy.dialects import postgresql

from llm_service.errors import InvalidLimitResults
from llm_service.jobs.limit_results import LimitResults
from llm_service.jobs.model import WorkflowJob

NOON = datetime(2026, 3, 1, 12, 34, 56, 789_012, tzinfo=UTC)
MIDNIGHT = datetime(2026, 3, 1, tzinfo=UTC)
WINDOWS = ("Today", "7 Days", "30 Days")
moments = st.datetimes(timezones=st.just(UTC)).filter(lambda at: at.year > 1)

NEAR_MISSES = [
    "today", "TODAY", "Today ", " Today", "Today\n", "Yesterday", "Tonight",
    "7 days", "7 DAYS", "7Days", "7  Days", "7\u00a0Days", "7+Days", "7%20Days", "07 Days", "8 Days", "7 Day", "7 Days ",
    "30 days", "30Days", "30 Day", "31 Days", "Last 30 Days", "30\tDays",
    " 25", "25 ", "25\n", "+5", "-5", "-0", "1e3", "1_0", "0x10", "2.0", "2,5", "1 0", "25 records", "1-500",
    "\u0662\u0665", "\uff12\uff15", "\u0968\u096b", "2\u0665", "²", "½", "Ⅻ", "all", "none", "null", "None", "unlimited", "*", "\x00", "25\x00", "🙂",
]  # fmt: skip


@given(st.integers(1, 500), st.integers(0, 600), moments)
@example(1, 0, NOON)
@example(500, 5_000, NOON)
def test_digits_of_1_to_500_are_a_count_however_many_zeros_lead(
    count: int, zeros: int, now: datetime
) -> None:
    assert LimitResults.parse("0" * zeros + str(count), now) == LimitResults(count=count, since=None)


@given(st.one_of(st.just(0), st.integers(501), st.integers(10**17, 10**30)), st.integers(0, 20))
@example(501, 0)
@example(1000, 0)
def test_any_other_number_is_refused_with_its_bounds(number: int, zeros: int) -> None:
    with pytest.raises(InvalidLimitResults, match="must be between 1-500"):
        LimitResults.parse("0" * zeros + str(number), NOON)


@pytest.mark.parametrize("text", ["9" * 5_000, "1" + "0" * 4_999, "0" * 5_000, "0" * 4_997 + "501"])
def test_s40_a_number_of_5000_digits_is_refused_like_any_other(text: str) -> None:
    with pytest.raises(InvalidLimitResults, match="must be between 1-500") as refused:
        LimitResults.parse(text, NOON)
    assert len(refused.value.message) < 150


@given(moments)
def test_empty_text_is_no_limit_at_all(now: datetime) -> None:
    assert LimitResults.parse("", now) == LimitResults(count=None, since=None)


@pytest.mark.parametrize(
    ("now", "since"),
    [
        (NOON, MIDNIGHT),
        (datetime(2026, 3, 1, 0, 0, 0, 0, tzinfo=UTC), MIDNIGHT),
        (datetime(2026, 3, 1, 0, 0, 0, 1, tzinfo=UTC), MIDNIGHT),
        (datetime(2026, 3, 1, 23, 59, 59, 999_999, tzinfo=UTC), MIDNIGHT),
        (datetime(2026, 3, 2, 0, 0, 0, 0, tzinfo=UTC), MIDNIGHT + timedelta(days=1)),
        (datetime(2024, 2, 29, 23, 59, 59, 999_999, tzinfo=UTC), datetime(2024, 2, 29, tzinfo=UTC)),
        (datetime(2026, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC), datetime(2026, 12, 31, tzinfo=UTC)),
        (datetime(2027, 1, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)),
    ],
)
def test_today_begins_at_0000_utc(now: datetime, since: datetime) -> None:
    assert LimitResults.parse("Today", now) == LimitResults(since=since)


@given(moments)
def test_today_is_this_day_in_utc_from_its_first_microsecond(now: datetime) -> None:
    since = LimitResults.parse("Today", now).since
    assert since is not None
    assert since.tzinfo is UTC
    assert since.date() == now.date()
    assert timedelta(0) <= now - since < timedelta(days=1)
    assert (since - timedelta(microseconds=1)).date() != now.date()


@given(moments)
def test_7_and_30_days_are_rolling_168_and_720_hours(now: datetime) -> None:
    assert LimitResults.parse("7 Days", now) == LimitResults(since=now - timedelta(hours=168))
    assert LimitResults.parse("30 Days", now) == LimitResults(since=now - timedelta(hours=720))


@pytest.mark.parametrize("text", NEAR_MISSES, ids=ascii)
def test_a_near_miss_is_refused_with_what_is_allowed(text: str) -> None:
    with pytest.raises(InvalidLimitResults) as refused:
        LimitResults.parse(text, NOON)
    error = refused.value
    assert error.status == 400
    assert error.code == "InvalidLimitResults"
    assert error.context == {"limit_results": text, "valid_values": ["1-500", "Today", "7 Days", "30 Days"]}
    for use in ("1-500", "'Today'", "'7 Days'", "'30 Days'"):
        assert use in error.message


@given(st.text(min_size=1), moments)
def test_s40_any_text_is_one_of_seven_uses_or_refused(text: str, now: datetime) -> None:
    try:
        parsed = LimitResults.parse(text, now)
    except InvalidLimitResults:
        assert text not in WINDOWS
        assert not (text.isascii() and text.isdigit() and 1 <= int(text) <= 500)
        return
    assert (parsed.count is None) != (parsed.since is None), "either a count or a window"
    assert (parsed.since is not None) == (text in WINDOWS)
    assert parsed.count is None or (text.isascii() and text.isdigit() and parsed.count == int(text))


@given(st.one_of(st.text(), st.sampled_from(WINDOWS), st.integers(0, 600).map(str)), moments)
def test_the_same_text_at_the_same_time_is_the_same_value(text: str, now: datetime) -> None:
    def once() -> object:
        try:
            return LimitResults.parse(text, now)
        except InvalidLimitResults as error:
            return error.message, error.context

    assert once() == once()


@pytest.mark.parametrize("text", ["x" * 1_000, "9" * 1_000, "\u0662" * 1_000, "Today" * 1_000])
def test_an_error_repeats_100_characters_of_the_value_and_no_more(text: str) -> None:
    with pytest.raises(InvalidLimitResults) as refused:
        LimitResults.parse(text, NOON)
    assert refused.value.context["limit_results"] == text[:100]
    assert text[:101] not in refused.value.message


@given(st.integers(1, 500), st.integers(1, 200))
def test_a_count_overrides_the_limit_and_sets_no_condition(count: int, requested: int) -> None:
    parsed = LimitResults.parse(str(count), NOON)
    assert parsed.limit(requested) == count
    assert parsed.clauses(WorkflowJob.created_at) == []


@given(st.sampled_from(("", *WINDOWS)), st.integers(1, 200))
def test_a_window_or_nothing_leaves_the_limit_alone(text: str, requested: int) -> None:
    assert LimitResults.parse(text, NOON).limit(requested) == requested


@pytest.mark.parametrize("text", WINDOWS)
def test_a_window_is_one_condition_on_the_bare_column(text: str) -> None:
    """An expression around the column would keep the index from being used."""
    parsed = LimitResults.parse(text, NOON)
    (clause,) = parsed.clauses(WorkflowJob.created_at)
    compiled = sa.select(WorkflowJob.id).where(clause).compile(dialect=postgresql.dialect())  # type: ignore[no-untyped-call]
    assert str(compiled).split("WHERE ")[1].startswith("llm_workflow_jobs.created_at >= %(param_1)s::")
    assert compiled.params == {"param_1": parsed.since}


def test_no_parameter_is_no_condition() -> None:
    assert LimitResults().clauses(WorkflowJob.created_at) == []
