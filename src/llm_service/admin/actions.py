"""POST /admin/actions/preview and POST /admin/actions: say what would be done, do it.

A body names the jobs (`job_ids`, 500 at most) or the page's query string (`filter`) with the count and the moment of
its preview (`expected`, `until`). A form of a page without script names one job and is led back to a page.
"""

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
from litestar import Request, Response, post
from litestar.response import Redirect
from msgspec import Meta

from llm_service.admin import deeds
from llm_service.admin.deeds import ACTIONS, Doer, Tally
from llm_service.admin.guard import form_of, local_path
from llm_service.admin.matching import matching, refuse_growth
from llm_service.admin.sessions import session_of
from llm_service.admin.spread import PER_S, is_spread
from llm_service.api.body import decode_body, refuse_other_media
from llm_service.api.job import parse_job_id
from llm_service.api.jobs import JobSummary, dollars, summary_of
from llm_service.api.services import services_of
from llm_service.errors import RequestError, ValidationError
from llm_service.jobs.store import listing, selection
from llm_service.jobs.store.listing import COUNT_CAP

SAMPLE = 5


class ActionRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Either `job_ids`, or `filter` with `expected` and `until`; `after` only to go on where an answer says so."""

    action: Literal["cancel", "retry", "redeliver", "delete"]
    job_ids: Annotated[list[UUID], Meta(min_length=1, max_length=500)] | None = None
    filter: Annotated[str, Meta(max_length=8000)] | None = None
    expected: Annotated[int, Meta(ge=0)] | None = None
    until: Annotated[datetime, Meta(tz=True)] | None = None
    after: Annotated[str, Meta(max_length=300)] | None = None


class ActionPreview(msgspec.Struct, frozen=True, kw_only=True):
    """`count` jobs are in a state that the action is for; `cost_usd` is what they cost when they ran.

    `starts_per_s` is how many of so many retries start a second; null where they start at once.
    """

    count: int
    count_is_capped: bool
    words: str
    until: datetime
    sample: list[JobSummary]
    cost_usd: float | None
    starts_per_s: float | None


class ActionResult(msgspec.Struct, frozen=True, kw_only=True):
    """`skipped` were gone or in another state. `after` is set when time ran out: send it to go on from there.

    `job_ids` are the jobs that it was done to (of a retry the new ones), 500 at most.
    """

    done: int
    skipped: int
    failed: int
    message: str
    job_ids: list[UUID]
    after: str | None


@post("/actions/preview", status_code=200, include_in_schema=False)
async def preview_action(request: Request[Any, Any, Any]) -> ActionPreview:
    wanted = await _read(request)
    database = services_of(request).database
    now = await database.clock.now()
    action = ACTIONS[wanted.action]
    if wanted.job_ids is not None:
        rows = [row for row in await selection.pick(database, wanted.job_ids) if row.status in action.states]
        costs = [row.cost_usd for row in rows if row.cost_usd is not None]
        return _preview(
            wanted.action,
            len(rows),
            f"{action.verb} {_jobs(len(rows))}",
            now,
            rows,
            sum(costs) if costs else None,
        )
    matched = matching(deeds.states_by_filter(wanted.action), _filter_of(wanted), now)
    count, cost = await selection.measure(database, matched.parts)
    rows = []
    for part in matched.parts:
        page = await listing.page(database, part, limit=SAMPLE, count="none")
        rows += page.rows
    moment = matched.filters.moment
    rows.sort(key=lambda row: (getattr(row, moment), row.id), reverse=True)
    return _preview(wanted.action, count, f"{action.verb} {_jobs(count)}: {matched.words}", now, rows, cost)


def _preview(
    action: str, count: int, words: str, until: datetime, rows: list[Any], cost: Decimal | float | None
) -> ActionPreview:
    return ActionPreview(
        count=min(count, COUNT_CAP),
        count_is_capped=count > COUNT_CAP,
        words=words,
        until=until,
        sample=[summary_of(row) for row in rows[:SAMPLE]],
        cost_usd=dollars(cost),
        starts_per_s=PER_S if action == "retry" and is_spread(count) else None,
    )


@post("/actions", status_code=200, include_in_schema=False)
async def run_action(request: Request[Any, Any, Any]) -> Response[Any]:
    if request.content_type[0] == "application/x-www-form-urlencoded":
        return await _run_form(request)
    wanted = await _read(request)
    doer = _doer(request)
    if wanted.job_ids is not None:
        tally = await deeds.do_selected(doer, wanted.action, list(dict.fromkeys(wanted.job_ids)))
        if len(wanted.job_ids) == 1 and tally.error is not None:
            raise tally.error
        return Response(_result(wanted.action, tally))
    if wanted.expected is None or wanted.until is None:
        raise ValidationError("needs expected and until, as the preview gave them", ["body", "filter"])
    until = min(wanted.until, await doer.services.database.clock.now())
    matched = matching(deeds.states_by_filter(wanted.action), _filter_of(wanted), until)
    count = await refuse_growth(doer.services.database, matched, wanted.expected)
    tally = await deeds.do_matching(doer, wanted.action, matched, count, wanted.after)
    return Response(_result(wanted.action, tally))


async def _run_form(request: Request[Any, Any, Any]) -> Response[Any]:
    """One job, from a page without script. What can't be done any more shows by itself on the page after it."""
    form = form_of(request)
    action = form.get("action", "")
    if action not in ACTIONS:
        raise ValidationError(f"must be one of: {', '.join(ACTIONS)}", ["body", "action"])
    job_id = parse_job_id(form.get("job_id", ""))
    tally = await deeds.do_selected(_doer(request), action, [job_id])
    if given := form.get("next"):
        return Redirect(local_path(given), status_code=303)
    if action == "delete":
        return Redirect("/admin/queue", status_code=303)
    return Redirect(f"/admin/queue/{tally.job_ids[0] if tally.job_ids else job_id}", status_code=303)


async def _read(request: Request[Any, Any, Any]) -> ActionRequest:
    refuse_other_media(request.headers.get("content-type"))
    wanted = decode_body(await request.body(), ActionRequest)
    if (wanted.job_ids is None) == (wanted.filter is None):
        raise ValidationError("give either job_ids or filter", ["body"])
    return wanted


def _filter_of(wanted: ActionRequest) -> str:
    return (wanted.filter or "").removeprefix("?")


def _doer(request: Request[Any, Any, Any]) -> Doer:
    return Doer(services_of(request), session_of(request).name, request.state.request_id)


def _result(action: str, tally: Tally) -> ActionResult:
    return ActionResult(
        done=tally.done,
        skipped=tally.skipped,
        failed=tally.failed,
        message=_message(action, tally, tally.error),
        job_ids=tally.job_ids[:500],
        after=tally.after,
    )


def _message(action: str, tally: Tally, error: RequestError | None) -> str:
    parts = [f"{_jobs(tally.done)} {ACTIONS[action].past}"]
    if tally.skipped:
        parts.append(f"{tally.skipped:,} skipped: gone or in another state")
    if tally.failed:
        parts.append(f"{tally.failed:,} failed: {error.message if error is not None else ''}")
    if tally.after is not None:
        parts.append("more may be left")
    return ", ".join(parts) + "."


def _jobs(count: int) -> str:
    return "1 job" if count == 1 else f"{count:,} jobs"
