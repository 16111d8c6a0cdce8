"""All jobs that the page's filters show and an action is for: which they are, how many, one batch after the other."""

import itertools
from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import NamedTuple

import msgspec

from llm_service.admin.errors import MatchesChanged, TooManyMatches
from llm_service.admin.query import read_query
from llm_service.db import Database
from llm_service.errors import InvalidCursor, ValidationError
from llm_service.jobs.filters import Cursor, JobFilters
from llm_service.jobs.store import listing, selection
from llm_service.jobs.store.listing import COUNT_CAP, JobRow

BATCH = 500
GROWTH = 1.1
"""By how much the matches may have grown since they were shown."""


class Matching(NamedTuple):
    """`text` is the page's query string, `parts` are its filters narrowed to the states that the action is for."""

    text: str
    words: str
    filters: JobFilters
    parts: list[JobFilters]


def matching(states: tuple[str, ...], text: str, until: datetime) -> Matching:
    """Read the page's filters, as of `until`.

    Raises `ValidationError` for what would be dropped: then more jobs would match.
    """
    query = read_query(text)
    if query.notices:
        raise ValidationError(" ".join(query.notices), ["body", "filter"])
    filters = query.filters(until)
    filters = msgspec.structs.replace(filters, before=min(until, filters.before or until))
    return Matching(text, query.words(), filters, selection.parts(filters, states))


async def refuse_growth(database: Database, wanted: Matching, expected: int) -> int:
    """How many jobs match now. Raises `MatchesChanged` or `TooManyMatches`."""
    count = (await selection.measure(database, wanted.parts)).jobs
    if count > COUNT_CAP:
        raise TooManyMatches(f"More than {COUNT_CAP:,} jobs match; narrow the filter.")
    if count > expected * GROWTH:
        raise MatchesChanged(
            f"{count:,} jobs match now, {expected:,} did when you looked. Nothing was done; look again.",
            count=count,
        )
    return count


async def batches(
    database: Database, wanted: Matching, place: str | None
) -> AsyncIterator[tuple[Sequence[JobRow], str | None]]:
    """The jobs, newest first, and the place after each batch; None where it was the last, if only of nothing.

    Begins behind `place`. Raises `InvalidCursor` for one that is none.
    """
    parts, cursor = wanted.parts, None
    if place is not None:
        status, _, text = place.partition(":")
        cursor = Cursor.parse(text, b"")
        parts = list(itertools.dropwhile(lambda part: part.status != status, parts))
        if not parts:
            raise InvalidCursor(
                "after must be what the last answer to this action said, unchanged.", after=place
            )
    if not parts:
        yield [], None
    for index, part in enumerate(parts):
        has_more = True
        while has_more:
            page = await listing.page(database, part, limit=BATCH, cursor=cursor, count="none")
            has_more = page.has_more
            behind = None
            if page.rows:
                last = page.rows[-1]
                cursor = Cursor.after(getattr(last, part.moment), last.id, b"")
                behind = f"{part.status}:{cursor.text()}"
            yield page.rows, behind if has_more or index < len(parts) - 1 else None
        cursor = None
