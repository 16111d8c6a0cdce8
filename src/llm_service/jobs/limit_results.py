"""LimitResults: the `limit_results` parameter as a value, a record count or a time window.

`25` is a number of records; `Today`, `7 Days` and `30 Days` are windows on an indexed time of the job.
"""

import re
from datetime import datetime, timedelta
from typing import Self

import msgspec
from sqlalchemy import ColumnElement
from sqlalchemy.orm import InstrumentedAttribute

from llm_service.errors import InvalidLimitResults
from llm_service.jobs.binding import Bind, itself

MAX_COUNT = 500
DAYS = {"7 Days": 7, "30 Days": 30}
_DIGITS = re.compile(r"[0-9]+")  # ASCII alone: int() would accept "٢٥", " 25 " and "2_5"


class LimitResults(msgspec.Struct, frozen=True):
    """Either `count` (1..500 records) or `since` (inclusive start of a window that ends now), never both."""

    count: int | None = None
    since: datetime | None = None

    @classmethod
    def parse(cls, text: str, now: datetime) -> Self:
        """Read the parameter. `now` is timezone-aware, in UTC, from the database's clock.

        Empty text is no limit at all. Raises `InvalidLimitResults` for anything that is not exactly one of
        the seven uses.
        """
        if not text:
            return cls()
        if _DIGITS.fullmatch(text):
            return cls(count=_count(text))
        if text == "Today":
            return cls(since=now.replace(hour=0, minute=0, second=0, microsecond=0))
        if text in DAYS:
            return cls(since=now - timedelta(days=DAYS[text]))
        raise InvalidLimitResults(
            f"Invalid limit_results value: '{text[:50]}'. "
            "Expected: numeric value (1-500), 'Today', '7 Days', or '30 Days'",
            text,
        )

    def limit(self, requested: int) -> int:
        """The page size in force: a count overrides what was requested, a window leaves it alone."""
        return requested if self.count is None else self.count

    def clauses(
        self, column: InstrumentedAttribute[datetime], bind: Bind = itself
    ) -> list[ColumnElement[bool]]:
        """The conditions on a time, ready for an index on it: none for a count."""
        return [] if self.since is None else [column >= bind("since", self.since, column.type)]


def _count(digits: str) -> int:
    significant = digits.lstrip("0")
    if not significant or len(significant) > 3 or int(significant) > MAX_COUNT:
        raise InvalidLimitResults(f"Numeric limit must be between 1-500 (got: {digits[:50]})", digits)
    return int(significant)
