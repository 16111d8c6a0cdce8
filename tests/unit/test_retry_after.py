"""Retry-After: seconds or an HTTP date, and whatever else a server may send."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llm_service.retry_after import retry_after_s


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("3", 3.0),
        (" 3 ", 3.0),
        ("0", 0.0),
        ("1.5", 1.5),
        ("60", 60.0),
        ("61", 60.0),
        ("999999999999999", 60.0),
    ],
)
def test_seconds_are_read_and_capped(header: str, seconds: float) -> None:
    assert retry_after_s(header, cap_s=60) == seconds


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        " ",
        "soon",
        "-3",
        "+3",
        "3s",
        "1e3",
        "nan",
        "inf",
        "0x10",
        "1_0",
        "٣",
        ".",
        "3.5.1",
        "9" * 5000,
    ],
)
def test_what_says_nothing_usable_is_none(header: str | None) -> None:
    assert retry_after_s(header, cap_s=60) is None


@pytest.mark.parametrize(("ahead_s", "least", "most"), [(30, 25, 30), (-30, 0, 0), (3600, 60, 60)])
def test_a_date_is_how_far_it_is_ahead(ahead_s: int, least: float, most: float) -> None:
    moment = datetime.now(UTC) + timedelta(seconds=ahead_s)
    seconds = retry_after_s(format_datetime(moment, usegmt=True), cap_s=60)
    assert seconds is not None
    assert least <= seconds <= most


def test_a_date_without_a_zone_is_utc() -> None:
    assert retry_after_s("Fri, 31 Dec 9999 23:59:59", cap_s=60) == 60


@given(st.text(max_size=60))
@example("Mon, 01 Jan 2024 00:00:00 -99999999999999999")
@example("Mon, 99999999999999999999999999 Jan 2024 00:00:00 +0000")
@example("Mon, 01 Jan 99999 00:00:00 GMT")
@example("Mon, 01 Jan 0001 00:00:00 +2359")
@example("Fri, 31 Dec 9999 23:59:59 -2359")
def test_no_header_raises_or_waits_past_the_cap(header: str) -> None:
    seconds = retry_after_s(header, cap_s=60)
    assert seconds is None or 0 <= seconds <= 60
