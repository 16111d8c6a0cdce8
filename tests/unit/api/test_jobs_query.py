"""The query string of GET /jobs: each parameter once, each wrong value its own error."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from litestar.datastructures import MultiDict

from llm_service.api.jobs import list_jobs
from llm_service.api.jobs_query import JobsQuery, read_jobs_query
from llm_service.errors import (
    ConflictingFilters,
    InvalidCursor,
    InvalidLimitResults,
    InvalidStatusFilter,
    InvalidTimeRange,
    InvalidUserID,
    RequestError,
    ValidationError,
)
from llm_service.jobs.filters import STATUS_FILTERS, Cursor, JobFilters
from llm_service.jobs.limit_results import LimitResults

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SOMEBODY = "6f1c6f80-7d2f-4c4c-9a1e-0d6f1c9a1b2c"
WINDOWS = ("Today", "7 Days", "30 Days")


def read(*pairs: tuple[str, str], **given: str) -> JobsQuery:
    return read_jobs_query(MultiDict([*pairs, *given.items()]), NOW)


def refused(error: type[RequestError], *pairs: tuple[str, str], **given: str) -> RequestError:
    with pytest.raises(RequestError) as caught:
        read(*pairs, **given)
    assert type(caught.value) is error, repr(caught.value)
    return caught.value


def cursor_for(*pairs: tuple[str, str], **given: str) -> str:
    return Cursor.after(NOW, UUID(SOMEBODY), read(*pairs, **given).fingerprint).text()


def test_nothing_given_is_the_first_50_of_everything() -> None:
    query = read()
    assert query.filters == JobFilters()
    assert (query.limit, query.offset, query.cursor, query.count) == (50, 0, None, "capped")


def test_every_parameter_finds_its_place() -> None:
    query = read(
        status="failed",
        user_id=SOMEBODY,
        username="jane",
        action="generate contacts",
        workflow_name="completion",
        error_code="ModelTimeout",
        limit="10",
        offset="20",
        created_after="2026-01-01T00:00:00Z",
        created_before="2026-02-01T00:00:00+01:00",
        count="exact",
    )
    assert query.filters == JobFilters(
        status="failed",
        user_id=UUID(SOMEBODY),
        username="jane",
        action="generate contacts",
        workflow_name="completion",
        error_code="ModelTimeout",
        after=datetime(2026, 1, 1, tzinfo=UTC),
        before=datetime(2026, 1, 31, 23, tzinfo=UTC),
    )
    assert (query.limit, query.offset, query.count) == (10, 20, "exact")


@pytest.mark.parametrize(
    "name",
    "status status_filter user_id username action workflow_name error_code limit_results created_after "
    "created_before cursor count".split(),
)
def test_an_empty_parameter_has_no_effect(name: str) -> None:
    assert read((name, "")) == read()


def test_an_unknown_parameter_has_no_effect() -> None:
    assert read(page="3", sort="asc") == read()


# --- status -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["status", "status_filter"])
@pytest.mark.parametrize("word", STATUS_FILTERS)
def test_both_names_of_the_status_take_each_word(name: str, word: str) -> None:
    assert read((name, word)).filters.status == word


def test_the_two_names_may_agree_but_not_differ() -> None:
    assert read(status="failed", status_filter="failed").filters.status == "failed"
    assert read(status="failed", status_filter="").filters.status == "failed"
    refused(ConflictingFilters, status="failed", status_filter="completed")
    refused(ConflictingFilters, status="all", status_filter="completed")


@pytest.mark.parametrize(
    "word", ["Failed", "FAILED", " failed", "done", "queued", "all,failed", "failed'--", "٢"]
)
def test_another_word_is_refused_with_the_words_there_are(word: str) -> None:
    error = refused(InvalidStatusFilter, status=word)
    assert error.context["valid_values"] == list(STATUS_FILTERS)
    assert all(each in error.message for each in STATUS_FILTERS)


# --- user_id ----------------------------------------------------------------------------------------------


def test_a_user_id_is_a_uuid_in_any_case() -> None:
    assert read(user_id=SOMEBODY.upper()).filters.user_id == UUID(SOMEBODY)


@pytest.mark.parametrize(
    "text", ["42", "not-a-uuid", SOMEBODY[:-1], SOMEBODY + "0", f" {SOMEBODY}", "' OR 1=1 --"]
)
def test_another_user_id_is_refused_and_repeated(text: str) -> None:
    assert refused(InvalidUserID, user_id=text).context == {"user_id": text}


def test_s40_an_error_repeats_100_characters_and_no_more() -> None:
    assert refused(InvalidUserID, user_id="x" * 5_000).context == {"user_id": "x" * 100}


# --- limit, offset, limit_results -------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "least", "most"), [("limit", 1, 200), ("offset", 0, 100_000)])
def test_s39_limit_and_offset_take_their_range_and_no_more(name: str, least: int, most: int) -> None:
    for text in (str(least), str(most), f"0{most}"):
        assert getattr(read((name, text)), name) == int(text)
    for text in (str(least - 1), str(most + 1), "9" * 5_000):
        error = refused(ValidationError, (name, text))
        assert error.context["errors"] == [
            {"loc": ["query", name], "msg": f"must be an integer from {least} to {most}"}
        ]


@pytest.mark.parametrize("name", ["limit", "offset"])
@pytest.mark.parametrize(
    "text", ["", " 5", "5 ", "+5", "-1", "5.0", "1e1", "1_0", "\u0665", "\uff15", "five", "5\n"]
)
def test_s40_a_limit_that_is_not_ascii_digits_is_422(name: str, text: str) -> None:
    assert refused(ValidationError, (name, text)).context["errors"][0]["loc"] == ["query", name]


@pytest.mark.parametrize("count", ["1", "25", "500", "025"])
def test_a_count_overrides_the_limit(count: str) -> None:
    assert read(limit_results=count, limit="7").limit == int(count)
    assert read(limit_results=count, limit="7", offset="3").offset == 3
    assert read(limit_results=count).filters.window.since is None


@pytest.mark.parametrize("window", WINDOWS)
def test_a_window_leaves_limit_and_offset_alone(window: str) -> None:
    query = read(limit_results=window, limit="7", offset="3")
    assert (query.limit, query.offset) == (7, 3)
    assert query.filters.window == LimitResults.parse(window, NOW)
    assert read(limit_results=window).limit == 50


def test_a_count_does_not_excuse_a_wrong_limit() -> None:
    refused(ValidationError, limit_results="25", limit="201")


@pytest.mark.parametrize("text", ["0", "501", "today", "7 days", "x" * 300])
def test_any_other_limit_results_is_the_contracts_400(text: str) -> None:
    error = refused(InvalidLimitResults, limit_results=text)
    assert error.context["limit_results"] == text[:100]
    assert error.context["valid_values"] == ["1-500", "Today", "7 Days", "30 Days"]


# --- time range -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-01-31T00:00:00Z", datetime(2026, 1, 31, tzinfo=UTC)),
        ("2026-01-31t00:00:00z", datetime(2026, 1, 31, tzinfo=UTC)),
        ("2026-01-31T00:00:00.123456Z", datetime(2026, 1, 31, 0, 0, 0, 123_456, tzinfo=UTC)),
        ("2026-01-31T02:00:00+02:00", datetime(2026, 1, 31, tzinfo=UTC)),
        ("2026-01-31T02:00:00 02:00", datetime(2026, 1, 31, tzinfo=UTC)),  # a + that was not encoded
        ("2026-01-30T18:30:00-05:30", datetime(2026, 1, 31, tzinfo=UTC)),
        ("2024-02-29T00:00:00-00:00", datetime(2024, 2, 29, tzinfo=UTC)),
        ("0001-01-01T00:00:00Z", datetime(1, 1, 1, tzinfo=UTC)),
        ("9999-12-31T23:59:59.999999Z", datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)),
    ],
)
def test_a_moment_is_rfc_3339_with_an_offset(text: str, moment: datetime) -> None:
    for name in ("created_after", "created_before"):
        assert getattr(read((name, text)).filters, name.removeprefix("created_")) == moment


@pytest.mark.parametrize("name", ["created_after", "created_before"])
@pytest.mark.parametrize(
    "text",
    [
        "2026-01-31", "2026-01-31T00:00:00", "2026-01-31 00:00:00Z", "2026-01-31T00:00Z", "2026-01-31T00:00:00+0200",
        "2026-02-30T00:00:00Z", "2026-13-01T00:00:00Z", "2026-01-31T24:00:00Z", "2026-01-31T00:00:60Z",
        "2026-01-31T00:00:00+24:00", "20260131T000000Z", "1769817600", "Today", "now", " 2026-01-31T00:00:00Z",
        "2026-01-31T00:00:00Z\n", "0000-01-01T00:00:00Z", "10000-01-01T00:00:00Z", "0001-01-01T00:00:00+14:00",
        "9999-12-31T23:59:59-14:00", "\u0662\u0660\u0662\u0666-01-31T00:00:00Z", "2026-01-31T00:00:00.Z",
    ],
    ids=ascii,
)  # fmt: skip
def test_another_moment_is_refused_and_repeated(name: str, text: str) -> None:
    error = refused(InvalidTimeRange, (name, text))
    assert error.context == {name: text}
    assert name in error.message


def test_a_range_must_go_forward() -> None:
    early, late = "2026-01-01T00:00:00Z", "2026-01-01T00:00:00.000001Z"
    assert read(created_after=early, created_before=late).filters.before is not None
    refused(InvalidTimeRange, created_after=late, created_before=early)
    refused(InvalidTimeRange, created_after=early, created_before=early)
    refused(InvalidTimeRange, created_after=early, created_before="2026-01-01T01:00:00+01:00")


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("name", ["created_after", "created_before"])
def test_a_window_and_a_range_conflict(window: str, name: str) -> None:
    refused(ConflictingFilters, (name, "2026-01-01T00:00:00Z"), limit_results=window)


@pytest.mark.parametrize("name", ["created_after", "created_before"])
def test_a_count_and_a_range_do_not_conflict(name: str) -> None:
    assert read((name, "2026-01-01T00:00:00Z"), limit_results="25").limit == 25


# --- cursor -----------------------------------------------------------------------------------------------


def test_a_cursor_is_read_under_the_question_it_was_made_for() -> None:
    question = {"status": "failed", "username": "jane", "limit_results": "7 Days"}
    query = read(cursor=cursor_for(**question), **question)
    assert query.cursor is not None
    assert query.cursor.position == (NOW, UUID(SOMEBODY))


def test_a_cursor_outlives_another_page_size_and_way_of_counting() -> None:
    assert read(cursor=cursor_for(limit="10"), limit="20", count="none").cursor is not None


def test_a_cursor_knows_both_names_of_the_status_as_one() -> None:
    assert read(cursor=cursor_for(status="failed"), status_filter="failed").cursor is not None


@pytest.mark.parametrize(
    "other",
    [
        {"status": "failed"},
        {"user_id": SOMEBODY},
        {"action": "jane"},
        {"limit_results": "Today"},
        {"limit_results": "30"},
        {"created_after": "2026-01-01T00:00:00Z"},
    ],
    ids=str,
)
def test_a_cursor_of_another_question_is_refused(other: dict[str, str]) -> None:
    refused(InvalidCursor, cursor=cursor_for(), **other)
    refused(InvalidCursor, cursor=cursor_for(**other))


@pytest.mark.parametrize("text", ["x", "ü", "A" * 201, "A" * 5_000, "!", " "])
def test_what_is_no_cursor_is_refused_and_repeated(text: str) -> None:
    assert refused(InvalidCursor, cursor=text).context == {"cursor": text[:100]}


@pytest.mark.parametrize("offset", ["0", "50"])
def test_a_cursor_and_an_offset_conflict(offset: str) -> None:
    refused(ConflictingFilters, cursor=cursor_for(), offset=offset)


# --- count, repeats, text ---------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["capped", "exact", "none"])
def test_count_takes_three_words(mode: str) -> None:
    assert read(count=mode).count == mode


@pytest.mark.parametrize("mode", ["Exact", "all", "1", "true", " none"])
def test_another_count_is_422(mode: str) -> None:
    assert refused(ValidationError, count=mode).context["errors"][0]["loc"] == ["query", "count"]


@pytest.mark.parametrize(
    ("name", "one", "other"),
    [
        ("status", "failed", "completed"),
        ("limit_results", "25", "Today"),
        ("limit", "5", "6"),
        ("user_id", SOMEBODY, ""),
        ("username", "jane", "Jane"),
        ("count", "none", "exact"),
    ],
)
def test_a_parameter_with_two_values_is_422_and_with_one_value_twice_is_that_value(
    name: str, one: str, other: str
) -> None:
    error = refused(ValidationError, (name, one), (name, other))
    assert error.context["errors"] == [{"loc": ["query", name], "msg": "may be given once"}]
    assert read((name, one), (name, one)) == read((name, one))


@pytest.mark.parametrize(
    "name",
    ["username", "action", "workflow_name", "error_code", "status", "user_id", "limit_results", "cursor"],
)
@pytest.mark.parametrize("text", ["\x00", "a\x00b", "\ud800"], ids=ascii)
def test_s34_text_that_postgresql_cannot_hold_is_422_naming_the_parameter(name: str, text: str) -> None:
    assert refused(ValidationError, (name, text)).context["errors"][0]["loc"] == ["query", name]


@pytest.mark.parametrize(
    ("name", "most"), [("username", 255), ("action", 255), ("workflow_name", 100), ("error_code", 50)]
)
def test_a_filter_may_be_as_long_as_its_column_and_no_longer(name: str, most: int) -> None:
    assert getattr(read((name, "é" * most)).filters, name) == "é" * most
    assert refused(ValidationError, (name, "é" * (most + 1))).context["errors"][0]["loc"] == ["query", name]


NAMES = [
    "status", "status_filter", "user_id", "username", "action", "workflow_name", "error_code", "limit", "offset",
    "limit_results", "created_after", "created_before", "cursor", "count",
]  # fmt: skip
WORDS = [
    "",
    "all",
    "failed",
    "25",
    "Today",
    "7 Days",
    "0",
    SOMEBODY,
    "2026-01-01T00:00:00Z",
    "exact",
    cursor_for(),
]


@given(st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(WORDS) | st.text()), max_size=6))
def test_s40_any_query_string_is_a_query_or_one_of_our_refusals(pairs: list[tuple[str, str]]) -> None:
    try:
        query = read(*pairs)
    except RequestError as error:
        assert error.status in {400, 422}  # noqa: PT017 - either way is right
        return
    assert 1 <= query.limit <= 500
    assert 0 <= query.offset <= 100_000
    assert query.cursor is None or query.offset == 0
    assert query.filters.window.since is None or query.filters.after is None


def test_the_clock_is_an_argument() -> None:
    params = MultiDict([("limit_results", "7 Days")])
    for now in (NOW, NOW + timedelta(days=400)):
        assert read_jobs_query(params, now).filters.window.since == now - timedelta(days=7)


def test_every_parameter_that_the_route_documents_is_read() -> None:
    assert set(list_jobs.fn.__annotations__) - {"request", "return"} == set(NAMES)
