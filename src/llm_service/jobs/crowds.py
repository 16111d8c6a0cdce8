"""Which questions have far more matches than a total counts to, remembered for a few seconds.

A total stops at a cap. To find each time that it is passed costs more than the page itself, and a question that was
seen to have twice as many matches can't have lost half of them a moment later.
"""

import time
from collections.abc import Callable

import msgspec

from llm_service.jobs.filters import JobFilters
from llm_service.jobs.limit_results import LimitResults

TRUSTED_S = 5.0
MOST = 1_000


class Crowds:
    """Those of one API process."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._seen: dict[JobFilters, float] = {}

    def note(self, filters: JobFilters) -> None:
        """The question was just seen to have far more matches than the cap."""
        if len(self._seen) >= MOST:
            self._seen.clear()
        self._seen[_of_its_day(filters)] = self._now()

    def is_known(self, filters: JobFilters) -> bool:
        seen_at = self._seen.get(_of_its_day(filters))
        return seen_at is not None and self._now() - seen_at < TRUSTED_S


def _of_its_day(filters: JobFilters) -> JobFilters:
    """A window moves on with every moment and stays the same question; another day's is another."""
    since = filters.window.since
    if since is None:
        return filters
    day = since.replace(hour=0, minute=0, second=0, microsecond=0)
    return msgspec.structs.replace(filters, window=LimitResults(since=day))
