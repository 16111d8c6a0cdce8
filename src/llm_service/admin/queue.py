"""GET /admin/queue: the list of jobs, as a page and as the part of it that polling asks for."""

import asyncio
from datetime import datetime
from typing import Any

import msgspec
from litestar import Request, Response, get
from litestar.response import Redirect

from llm_service.admin.health import Health, HealthLook
from llm_service.admin.html import etag_of, pages_of
from llm_service.admin.polling import refuse_haste
from llm_service.admin.query import PageQuery, read_query
from llm_service.admin.view import Row, row_of
from llm_service.api.services import Services, services_of
from llm_service.errors import InvalidCursor, ServiceUnavailable
from llm_service.jobs.filters import Cursor, JobFilters
from llm_service.jobs.store import insight, listing
from llm_service.jobs.store.listing import JobRow

CHIPS = {
    "all": ("all",),
    "running": ("pending", "processing"),
    "completed": ("completed",),
    "failed": ("failed",),
    "pending": ("pending",),
    "cancelled": ("cancelled",),
}
"""The states over the table and the counts that each adds up."""


class Chip(msgspec.Struct, frozen=True):
    """One state with its count; None where the counts are out of reach."""

    status: str
    count: int | None
    capped: bool


class Listed(msgspec.Struct, frozen=True, kw_only=True):
    """What one look at the queue found."""

    rows: list[Row]
    total: int
    capped: bool
    next_cursor: str | None
    is_first: bool
    chips: list[Chip] | None
    health: Health


@get("/queue", include_in_schema=False)
async def show_queue(request: Request[Any, Any, Any]) -> Response[Any]:
    query = read_query(_query_string(request))
    if query.q is not None:
        rest = query.text(q=None)
        return Redirect(f"/admin/queue/{query.q}" + (f"?{rest}" if rest else ""), status_code=303)
    now = await services_of(request).database.clock.now()
    listed, query = await _look(request, query, now, with_chips=True)
    return await pages_of(request).answer_in_turns(request, "queue.html", now=now, query=query, listed=listed)


@get("/queue/rows", include_in_schema=False)
async def show_rows(request: Request[Any, Any, Any]) -> Response[Any]:
    """What changes while one looks. 304 where it is what the page has. `part=all` brings the counts too.

    429 where it is asked for more often than every 2 s for a while.
    """
    query = read_query(_query_string(request))
    # Each place further down is a view of its own: it is loaded once, by hand.
    refuse_haste(request, f"rows {query.text()} {request.query_params.get('cursor', '')}")
    now = await services_of(request).database.clock.now()
    with_chips = request.query_params.get("part") == "all"
    listed, query = await _look(request, query, now, with_chips=with_chips)
    etag = etag_of(listed)
    headers = {"ETag": etag, "Vary": "Cookie"}
    if request.headers.get("if-none-match") == etag:
        return Response(None, status_code=304, headers=headers)
    return await pages_of(request).answer_in_turns(
        request, "_live.html", headers=headers, now=now, query=query, listed=listed
    )


def _query_string(request: Request[Any, Any, Any]) -> str:
    text: bytes = request.scope["query_string"]
    return text.decode("ascii", "replace")


async def _look(
    request: Request[Any, Any, Any], query: PageQuery, now: datetime, *, with_chips: bool
) -> tuple[Listed, PageQuery]:
    services = services_of(request)
    looking: HealthLook = request.app.state.health
    filters = query.filters(now)
    fingerprint = filters.fingerprint(query.limit)
    cursor, query = _cursor(request, query, fingerprint)
    page, chips, health = await asyncio.gather(
        listing.page(
            services.database, filters, limit=query.page_size, cursor=cursor, crowds=services.crowds
        ),
        _chips(services, filters) if with_chips else _nothing(),
        looking.look(),
    )
    last = page.rows[-1] if page.rows and page.has_more and query.is_window else None
    listed = Listed(
        rows=[row_of(job, now) for job in page.rows],
        total=page.total or 0,
        capped=page.total_is_capped,
        next_cursor=None if last is None else _place_of(last, filters, fingerprint),
        is_first=cursor is None,
        chips=chips,
        health=health,
    )
    return listed, query


def _place_of(job: JobRow, filters: JobFilters, fingerprint: bytes) -> str:
    return Cursor.after(getattr(job, filters.moment), job.id, fingerprint).text()


def _cursor(
    request: Request[Any, Any, Any], query: PageQuery, fingerprint: bytes
) -> tuple[Cursor | None, PageQuery]:
    text = request.query_params.get("cursor")
    if not text or not query.is_window:
        return None, query
    try:
        return Cursor.parse(text[:200] if text.isascii() else "?", fingerprint), query
    except InvalidCursor:
        notice = "The place in the list belonged to other filters; this is its beginning."
        return None, msgspec.structs.replace(query, notices=(*query.notices, notice))


async def _chips(services: Services, filters: JobFilters) -> list[Chip] | None:
    """None where counting fails: the table stands without."""
    try:
        counts = await insight.counts(services.database, filters)
    except ServiceUnavailable:
        return None
    return [
        Chip(
            status,
            sum(counts[state].value for state in states),
            any(counts[state].is_capped for state in states),
        )
        for status, states in CHIPS.items()
    ]


async def _nothing() -> None:
    return None
