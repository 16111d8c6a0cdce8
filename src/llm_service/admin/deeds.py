"""What the queue page can do to jobs: to those that were selected, or to all that match the page's filters.

A deed is written into the audit before it begins, its numbers after each batch. Both cannot be one transaction with
the deed itself: each job is one of its own, so that no job waits for another.

By filter, jobs are taken newest first in batches, 10,000 at most, over as many requests as it takes: the row in the
audit has an end when the last batch is done, and one that was broken off has none. Retries made so go in at priority 0,
behind what users have asked for meanwhile, and many of them start one after another.
"""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple
from uuid import UUID

import msgspec

from llm_service.admin import store
from llm_service.admin.matching import Matching, batches
from llm_service.admin.spread import Starts, is_spread
from llm_service.admin.store import Deed
from llm_service.api.services import Services
from llm_service.errors import (
    InvalidCursor,
    JobNotCancellable,
    JobNotFound,
    JobNotRetryable,
    RequestError,
    ServiceUnavailable,
    ValidationError,
    WebhookNotRedeliverable,
)
from llm_service.jobs import cancel
from llm_service.jobs.model import JobStatus
from llm_service.jobs.redeliver import redeliver
from llm_service.jobs.store import intake
from llm_service.logs import get_logger

log = get_logger(__name__)

AT_ONCE = 4
"""Jobs in hand at one time: the API's connections are for its callers."""
BUDGET_S = 3.0
"""After this no further batch is begun: the answer says where to go on."""
LAST = 0
"""The priority of many retries at once."""


class Doer(NamedTuple):
    """Who asks, and by what."""

    services: Services
    session: str
    request_id: str


class Tally(msgspec.Struct, kw_only=True):
    """What became of a deed, or of a batch of it. `job_ids` are the jobs it was done to; of a retry, the new ones."""

    done: int = 0
    skipped: int = 0
    failed: int = 0
    job_ids: list[UUID] = []
    after: str | None = None
    """Where to go on, when time ran out."""
    error: RequestError | None = None
    """Why a job failed, of the last that did."""

    def add(self, batch: "Tally") -> None:
        self.done += batch.done
        self.skipped += batch.skipped
        self.failed += batch.failed
        self.job_ids += batch.job_ids
        self.error = batch.error or self.error


class Terms(NamedTuple):
    """How a retry goes in: with another priority than its job had, and when."""

    priority: int | None = None
    starts: Starts | None = None

    def delay_s(self) -> float:
        return 0.0 if self.starts is None else self.starts.take()


One = Callable[[Doer, UUID, Terms], Awaitable[UUID]]
"""Does it to one job. Returns the job that there is to see now."""


async def _cancel_one(doer: Doer, job_id: UUID, _: Terms) -> UUID:
    await cancel.cancel(doer.services.database, doer.services.queue, job_id)
    return job_id


async def _retry_one(doer: Doer, job_id: UUID, terms: Terms) -> UUID:
    accepted = await doer.services.desk.retry(
        job_id, request_id=doer.request_id, priority=terms.priority, delay_s=terms.delay_s()
    )
    return accepted.job_id


async def _redeliver_one(doer: Doer, job_id: UUID, _: Terms) -> UUID:
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


def states_by_filter(action: str) -> tuple[str, ...]:
    """The states of jobs that an action by filter is for. Raises `ValidationError` for one that is for selections."""
    found = ACTIONS[action]
    if found.one is None:
        raise ValidationError("is for a selection of jobs, not for a filter", ["body", "action"])
    return found.states


# --- doing it ---------------------------------------------------------------------------------------------


async def do_selected(doer: Doer, action: str, job_ids: Sequence[UUID]) -> Tally:
    """Do it to these jobs, whatever state they are in; those it is not for are skipped."""
    deed = Deed(doer.session, action, None, job_ids, len(job_ids), doer.request_id)
    number = await store.begin_deed(doer.services.database, deed)
    one = ACTIONS[action].one
    if one is None:
        gone = await cancel.delete(doer.services.database, doer.services.queue, job_ids)
        tally = Tally(done=len(gone), skipped=len(job_ids) - len(gone), job_ids=gone)
    else:
        tally = await _each(doer, one, job_ids, await _terms(doer, action, len(job_ids)))
    await _note(doer, number, tally, [], is_over=True)
    _log(deed, tally)
    return tally


async def do_matching(doer: Doer, action: str, wanted: Matching, matched: int, after: str | None) -> Tally:
    """Do it to all that match, newest first, until it is done or time is up; then `after` says where to go on."""
    one = ACTIONS[action].one
    assert one is not None  # noqa: S101 - `states_by_filter` has refused it
    deed = Deed(doer.session, action, wanted.text, [], matched, doer.request_id)
    number, place = await _begin(doer, deed, after)
    terms = await _terms(doer, action, matched, priority=LAST)
    tally = Tally()
    started = time.monotonic()
    async for rows, behind in batches(doer.services.database, wanted, place):
        ids = [row.id for row in rows]
        batch = await _each(doer, one, ids, terms)
        tally.add(batch)
        await _note(doer, number, batch, ids, is_over=behind is None)
        if behind is not None and time.monotonic() - started >= BUDGET_S:
            tally.after = f"{number}.{behind}"
            break
    _log(deed, tally)
    return tally


async def _begin(doer: Doer, deed: Deed, after: str | None) -> tuple[int, str | None]:
    """The deed's row in the audit, a new one or that of the request before, and the place to go on from."""
    if after is None:
        return await store.begin_deed(doer.services.database, deed), None
    digits, _, place = after.partition(".")
    number = int(digits) if re.fullmatch("[0-9]{1,18}", digits) else 0
    if not await store.go_on_with_deed(doer.services.database, number, deed):
        raise InvalidCursor("after must be what the last answer to this action said, unchanged.", after=after)
    return number, place


async def _terms(doer: Doer, action: str, count: int, *, priority: int | None = None) -> Terms:
    if action != "retry" or not is_spread(count):
        return Terms(priority)
    return Terms(priority, Starts(await intake.last_start_s(doer.services.database)))


async def _each(doer: Doer, one: One, job_ids: Sequence[UUID], terms: Terms) -> Tally:
    tally = Tally()
    for start in range(0, len(job_ids), AT_ONCE):
        now = job_ids[start : start + AT_ONCE]
        outcomes = await asyncio.gather(*(one(doer, job_id, terms) for job_id in now), return_exceptions=True)
        for outcome in outcomes:
            _count(outcome, tally)
    return tally


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


async def _note(doer: Doer, number: int, batch: Tally, reached: Sequence[UUID], *, is_over: bool) -> None:
    await store.note_deed(
        doer.services.database,
        number,
        done=batch.done,
        skipped=batch.skipped,
        failed=batch.failed,
        reached=reached,
        is_over=is_over,
    )


def _log(deed: Deed, tally: Tally) -> None:
    log.info(
        "admin action",
        session=deed.session,
        action=deed.action,
        matched=deed.matched,
        done=tally.done,
        skipped=tally.skipped,
        failed=tally.failed,
        is_over=tally.after is None,
    )
