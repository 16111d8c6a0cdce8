"""What the queue page can do to jobs: to those that were selected, or to all that match the page's filters.

A deed is written into the audit before it begins, its numbers when it has ended. Both cannot be one transaction with
the deed itself: each job is one of its own, so that no job waits for another.

By filter, jobs are taken newest first in batches, 10,000 at most. Retries made so go in at priority 0, behind what
users have asked for meanwhile; how many run at once is the workers' affair as always.
"""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

import msgspec

from llm_service.admin import store
from llm_service.admin.errors import MatchesChanged, TooManyMatches
from llm_service.admin.query import read_query
from llm_service.admin.store import Deed
from llm_service.api.services import Services
from llm_service.errors import (
    JobNotCancellable,
    JobNotFound,
    JobNotRetryable,
    RequestError,
    ServiceUnavailable,
    ValidationError,
    WebhookNotRedeliverable,
)
from llm_service.jobs import cancel
from llm_service.jobs.filters import Cursor, JobFilters
from llm_service.jobs.model import JobStatus
from llm_service.jobs.redeliver import redeliver
from llm_service.jobs.store import listing, selection
from llm_service.jobs.store.listing import COUNT_CAP, JobRow
from llm_service.logs import get_logger

log = get_logger(__name__)

BATCH = 500
AT_ONCE = 4
"""Jobs in hand at one time: the API's connections are for its callers."""
BUDGET_S = 3.0
"""After this no further batch is begun: the answer says where to go on."""
LAST = 0
"""The priority of many retries at once."""
GROWTH = 1.1
"""By how much the matches may have grown since they were shown."""


class Doer(NamedTuple):
    """Who asks, and by what."""

    services: Services
    session: str
    request_id: str


class Tally(msgspec.Struct, kw_only=True):
    """What became of a deed. `job_ids` are the jobs that it reached; of a retry, the new ones."""

    done: int = 0
    skipped: int = 0
    failed: int = 0
    job_ids: list[UUID] = []
    reached: list[UUID] = []
    after: str | None = None
    """Where to go on, when time ran out."""
    error: RequestError | None = None
    """Why a job failed, of the last that did."""


One = Callable[[Doer, UUID, int | None], Awaitable[UUID]]
"""Does it to one job, with another priority where one is given. Returns the job that there is to see now."""


async def _cancel_one(doer: Doer, job_id: UUID, _: int | None) -> UUID:
    await cancel.cancel(doer.services.database, doer.services.queue, job_id)
    return job_id


async def _retry_one(doer: Doer, job_id: UUID, priority: int | None) -> UUID:
    accepted = await doer.services.desk.retry(job_id, request_id=doer.request_id, priority=priority)
    return accepted.job_id


async def _redeliver_one(doer: Doer, job_id: UUID, _: int | None) -> UUID:
    await redeliver(doer.services.database, doer.services.queue, job_id)
    return job_id


class Action(NamedTuple):
    """`states`: what a job must be in. `one` is None for what is done to a selection at once."""

    verb: str
    past: str
    states: tuple[str, ...]
    one: One | None


FINISHED = (JobStatus.COMPLETED.value, JobStatus.FAILED.value, JobStatus.CANCELLED.value)
OPEN = (JobStatus.PENDING.value, JobStatus.PROCESSING.value)

ACTIONS = {
    "cancel": Action("Cancel", "cancelled", OPEN, _cancel_one),
    "retry": Action("Retry", "submitted again", FINISHED, _retry_one),
    "redeliver": Action("Send again the webhook of", "whose webhook is sent again", FINISHED, _redeliver_one),
    "delete": Action("Delete", "deleted", (*OPEN, *FINISHED), None),
}
"""A further action is a line here, and a name in the `Literal` of actions.py."""


# --- which jobs -------------------------------------------------------------------------------------------


class Matching(NamedTuple):
    """All jobs that the page's filters show and the action is for, as of a moment. `text` is the page's query string."""

    action: Action
    text: str
    words: str
    filters: JobFilters
    parts: list[JobFilters]


def matching(action: str, text: str, until: datetime) -> Matching:
    """Read the page's filters. Raises `ValidationError` for what would be dropped: then more jobs would match."""
    found = ACTIONS[action]
    if found.one is None:
        raise ValidationError("is for a selection of jobs, not for a filter", ["body", "action"])
    query = read_query(text)
    if query.notices:
        raise ValidationError(" ".join(query.notices), ["body", "filter"])
    filters = query.filters(until)
    filters = msgspec.structs.replace(filters, before=min(until, filters.before or until))
    return Matching(found, text, query.words(), filters, selection.parts(filters, found.states))


async def refuse_growth(doer: Doer, wanted: Matching, expected: int) -> int:
    """How many jobs match now. Raises `MatchesChanged` or `TooManyMatches`."""
    count = (await selection.measure(doer.services.database, wanted.parts)).jobs
    if count > COUNT_CAP:
        raise TooManyMatches(f"More than {COUNT_CAP:,} jobs match; narrow the filter.")
    if count > expected * GROWTH:
        raise MatchesChanged(
            f"{count:,} jobs match now, {expected:,} did when you looked. Nothing was done; look again.",
            count=count,
        )
    return count


# --- doing it ---------------------------------------------------------------------------------------------


async def do_selected(doer: Doer, action: str, job_ids: Sequence[UUID]) -> Tally:
    """Do it to these jobs, whatever state they are in; those it is not for are skipped."""
    deed = Deed(doer.session, action, None, job_ids, len(job_ids), doer.request_id)
    number = await store.begin_deed(doer.services.database, deed)
    tally = Tally(reached=list(job_ids))
    one = ACTIONS[action].one
    if one is None:
        gone = await cancel.delete(doer.services.database, doer.services.queue, job_ids)
        tally.done, tally.skipped, tally.job_ids = len(gone), len(job_ids) - len(gone), gone
    else:
        await _each(doer, one, job_ids, tally, priority=None)
    await _close(doer, number, deed, tally)
    return tally


async def do_matching(doer: Doer, action: str, wanted: Matching, matched: int, after: str | None) -> Tally:
    """Do it to all that match, newest first, until it is done or time is up; then `after` says where to go on."""
    one = wanted.action.one
    assert one is not None  # noqa: S101 - `matching` has refused it
    deed = Deed(doer.session, action, wanted.text, [], matched, doer.request_id)
    number = await store.begin_deed(doer.services.database, deed)
    tally = Tally()
    started = time.monotonic()
    async for rows, place in _batches(doer, wanted, after):
        ids = [row.id for row in rows]
        tally.reached += ids
        await _each(doer, one, ids, tally, priority=LAST)
        if place is not None and time.monotonic() - started >= BUDGET_S:
            tally.after = place
            break
    await _close(doer, number, deed, tally)
    return tally


async def _batches(
    doer: Doer, wanted: Matching, after: str | None
) -> AsyncIterator[tuple[list[JobRow], str | None]]:
    """The jobs, and the place after each batch; None where it was the last."""
    parts, cursor = wanted.parts, None
    if after is not None:
        status, _, text = after.partition(":")
        cursor = Cursor.parse(text, b"")
        parts = list(itertools.dropwhile(lambda part: part.status != status, parts))
    for index, part in enumerate(parts):
        has_more = True
        while has_more:
            page = await listing.page(doer.services.database, part, limit=BATCH, cursor=cursor, count="none")
            has_more = page.has_more
            place = None
            if page.rows:
                last = page.rows[-1]
                cursor = Cursor.after(getattr(last, part.moment), last.id, b"")
                place = f"{part.status}:{cursor.text()}"
            yield page.rows, place if has_more or index < len(parts) - 1 else None
        cursor = None


async def _each(doer: Doer, one: One, job_ids: Sequence[UUID], tally: Tally, *, priority: int | None) -> None:
    for start in range(0, len(job_ids), AT_ONCE):
        now = job_ids[start : start + AT_ONCE]
        outcomes = await asyncio.gather(
            *(one(doer, job_id, priority) for job_id in now), return_exceptions=True
        )
        for outcome in outcomes:
            _count(outcome, tally)


def _count(outcome: UUID | BaseException, tally: Tally) -> None:
    match outcome:
        case UUID():
            tally.done += 1
            tally.job_ids.append(outcome)
        case JobNotFound() | JobNotCancellable() | JobNotRetryable() | WebhookNotRedeliverable():
            # Gone, or in another state than when it was shown: there is nothing to be done.
            tally.skipped += 1
            tally.error = outcome
        case RequestError() if not isinstance(outcome, ServiceUnavailable):
            tally.failed += 1
            tally.error = outcome
        case _:
            raise outcome


async def _close(doer: Doer, number: int, deed: Deed, tally: Tally) -> None:
    await store.end_deed(
        doer.services.database,
        number,
        done=tally.done,
        skipped=tally.skipped,
        failed=tally.failed,
        job_ids=tally.reached,
    )
    log.info(
        "admin action",
        session=deed.session,
        action=deed.action,
        matched=deed.matched,
        done=tally.done,
        skipped=tally.skipped,
        failed=tally.failed,
    )
