"""The page's address: read, said in words and written again."""

from datetime import UTC, datetime
from urllib.parse import parse_qsl
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_service.admin.query import LIMITS, STATUSES, TIMES, PageQuery, read_query

NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
ANYONE = UUID("0190aaaa-0000-7000-8000-000000000001")

states = st.builds(
    PageQuery,
    status=st.sampled_from(sorted(STATUSES)),
    limit=st.sampled_from(sorted(LIMITS)),
    time=st.sampled_from(sorted(TIMES)),
    action=st.none()
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=255),
    user=st.none()
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=255),
    user_id=st.none() | st.just(ANYONE),
    after=st.none() | st.datetimes(datetime(2020, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
)


@given(states)
def test_every_state_survives_its_address(state: PageQuery) -> None:
    assert read_query(state.url().partition("?")[2]) == state


def test_the_default_is_25_records_of_all_and_has_a_bare_address() -> None:
    query = read_query("")
    assert (query.limit, query.page_size, query.status, query.url()) == ("25", 25, "all", "/admin/queue")
    assert not query.is_filtered


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("limit=26", "26"),
        ("limit=Yesterday", "Yesterday"),
        ("limit=7+days", "7 days"),
        ("status=broken", "broken"),
        ("time=started", "started"),
        ("user_id=me", "me"),
        ("sort=desc", "sort"),
        ("after=now", "now"),
        ("q=1", "1"),
        ("action=a%00b", "Action"),
        ("user=" + "x" * 256, "xxx"),
        ("status=failed&status=all", "twice"),
        ("__proto__=1", "__proto__"),
    ],
)
def test_what_is_wrong_is_dropped_and_said(text: str, word: str) -> None:
    query = read_query(text)
    assert query.status in ("all", "failed")
    assert len(query.notices) == 1
    assert word in query.notices[0]


@given(st.text())
def test_no_address_breaks_the_page(text: str) -> None:
    read_query(text).filters(NOW)


def test_a_window_pages_by_50_and_reaches_the_filters() -> None:
    query = read_query("limit=7+Days&status=failed&user=jane&action=generate+contacts")
    filters = query.filters(NOW)
    assert (query.page_size, query.is_window) == (50, True)
    assert filters.window.since == datetime(2026, 2, 25, 5, 6, 7, tzinfo=UTC)
    assert (filters.status, filters.username, filters.action) == ("failed", "jane", "generate contacts")


def test_a_change_of_one_filter_keeps_the_others() -> None:
    query = read_query("status=failed&limit=Today&user=jane")
    assert dict(parse_qsl(query.text(action="x"))) == {
        "status": "failed",
        "limit": "Today",
        "user": "jane",
        "action": "x",
    }
    assert query.url(status=None, limit=None, user=None) == "/admin/queue"


def test_the_words_name_every_filter() -> None:
    words = read_query(
        "status=failed&limit=Today&user=jane&action=generate+contacts&error=ModelTimeout"
    ).words()
    assert words == 'failed jobs of jane, action "generate contacts", error "ModelTimeout", since 00:00 UTC'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("limit=Today", "jobs, since 00:00 UTC"),
        ("limit=Today&time=finished", "jobs, finished since 00:00 UTC"),
        ("status=failed&time=finished", "failed jobs, by the time they finished"),
        (
            "time=finished&after=2026-03-01T00:00:00Z&before=2026-03-02T00:00:00Z",
            "jobs, finished from 2026-03-01 00:00:00 UTC, before 2026-03-02 00:00:00 UTC",
        ),
    ],
)
def test_the_words_say_which_time_counts(text: str, words: str) -> None:
    assert read_query(text).words() == words


def test_the_time_that_counts_reaches_the_filters() -> None:
    assert read_query("").filters(NOW).moment == "created_at"
    assert read_query("time=created").url() == "/admin/queue"
    assert read_query("time=finished&limit=Today").filters(NOW).moment == "completed_at"
