"""GET /admin/queue/{job_id}: one job, why it failed, what happened when; and its payloads as downloads."""

import asyncio
import json
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import msgspec
from litestar import Request, Response, get
from litestar.params import FromPath

from llm_service.admin.html import etag_of, pages_of, wants_part
from llm_service.admin.polling import refuse_haste
from llm_service.admin.query import PageQuery, read_query
from llm_service.admin.timeline import timeline_of
from llm_service.admin.view import Row, row_of
from llm_service.api.job import parse_job_id
from llm_service.api.services import Services, services_of
from llm_service.errors import JobNotFound
from llm_service.jobs.filters import JobFilters
from llm_service.jobs.limit_results import LimitResults
from llm_service.jobs.store import listing
from llm_service.jobs.store.listing import JobRecord

PREVIEW = 32_768
"""Characters of a payload that a page shows."""
PROMPT = 8_192
"""Characters of a prompt or an answer that a page shows."""
AROUND = timedelta(hours=1)
NEIGHBOURS = 8
NAMES = {"input": "input_data", "output": "result"}


class Around(msgspec.Struct, frozen=True, kw_only=True):
    """The other jobs that help to understand this one."""

    rows: list[Row]
    link: str | None
    same_error: int
    same_error_capped: bool
    same_error_link: str | None


@get("/queue/{job_id:str}", include_in_schema=False)
async def show_job(request: Request[Any, Any, Any], job_id: FromPath[str]) -> Response[Any]:
    services = services_of(request)
    query = read_query(request.scope["query_string"].decode("ascii", "replace"))
    if wants_part(request):
        refuse_haste(request, f"job {job_id}")
    now = await services.database.clock.now()
    record = await _find(services, job_id)
    if record is None:
        return pages_of(request).answer(
            request, "no_job.html", status=404, now=now, query=query, job_id=job_id[:100]
        )
    etag = etag_of(_facts(record))
    if request.headers.get("if-none-match") == etag:
        return Response(None, status_code=304, headers={"ETag": etag})
    around = await _around(services, record.job, now)
    return pages_of(request).answer(
        request,
        "job.html",
        headers={"ETag": etag},
        now=now,
        query=query,
        job=record.job,
        row=row_of(record.job, now),
        record=record,
        timeline=timeline_of(record, now),
        calls=[call_of(call) for call in record.calls],
        totals=_totals(record),
        around=around,
        preview=PREVIEW,
        prompt_preview=PROMPT,
        hook=_hook(record.job.webhook_url),
        signed=_signed(services, record.job),
    )


async def _find(services: Services, job_id: str) -> JobRecord | None:
    try:
        return await listing.get_job(services.database, parse_job_id(job_id), preview=PREVIEW)
    except JobNotFound:
        return None


def _facts(record: JobRecord) -> list[Any]:
    """What the page is made of, without what a heartbeat moves on."""
    job = {name: value for name, value in record.job._mapping.items() if name != "lease_expires_at"}  # noqa: SLF001
    rows = [*record.attempts, *record.calls, *record.tries, *([record.delivery] if record.delivery else [])]
    return [
        {str(name): str(value) for name, value in job.items()},
        [[str(value) for value in row] for row in rows],
    ]


async def _around(services: Services, job: Any, now: datetime) -> Around:
    whose = {"username": job.username} if job.username is not None else {"user_id": job.user_id}
    after, before = job.created_at - AROUND, job.created_at + AROUND
    rows: list[Row] = []
    link = None
    if any(value is not None for value in whose.values()):
        filters = JobFilters(after=after, before=before, **whose)
        page, failed = await asyncio.gather(
            listing.page(services.database, filters, limit=NEIGHBOURS + 1, count="none"),
            _same_error(services, job, now),
        )
        rows = [row_of(other, now) for other in page.rows if other.id != job.id][:NEIGHBOURS]
        state = PageQuery(
            limit="200", user=job.username, user_id=whose.get("user_id"), after=after, before=before
        )
        link = state.url()
    else:
        failed = await _same_error(services, job, now)
    same, capped = failed
    error_link = (
        PageQuery(status="failed", limit="Today", time="finished", error=job.error_code).url()
        if job.error_code
        else None
    )
    return Around(rows=rows, link=link, same_error=same, same_error_capped=capped, same_error_link=error_link)


async def _same_error(services: Services, job: Any, now: datetime) -> tuple[int, bool]:
    """How many other jobs of today failed with this job's code."""
    if job.error_code is None:
        return 0, False
    today = LimitResults.parse("Today", now)
    filters = JobFilters(status="failed", error_code=job.error_code, window=today, moment="completed_at")
    page = await listing.page(services.database, filters, limit=1)
    ended_today = job.completed_at is not None and today.since is not None and job.completed_at >= today.since
    itself = ended_today and not page.total_is_capped
    return (page.total or 0) - itself, page.total_is_capped


def call_of(call: Any) -> dict[str, Any]:
    """A call for the table, with the texts of its prompt where they were kept."""
    return {**call._mapping, "messages": [_message(part) for part in call.prompt or []]}  # noqa: SLF001


def _message(part: Any) -> tuple[str, str]:
    """Who says what, as plain text; a part of unknown shape is shown as the JSON it is."""
    if isinstance(part, dict) and isinstance(part.get("content"), str):
        return str(part.get("role", "")), part["content"]
    return "", json.dumps(part, ensure_ascii=False, indent=2)


def _totals(record: JobRecord) -> dict[str, Any]:
    def total(name: str) -> Any:
        known = [getattr(call, name) for call in record.calls if getattr(call, name) is not None]
        return sum(known) if known else None

    return {
        name: total(name) for name in ("latency_ms", "input_tokens", "output_tokens", "cost_usd", "retries")
    }


def _hook(url: str | None) -> tuple[str, str, str] | None:
    """A webhook's address in three parts, the host in the middle."""
    if url is None:
        return None
    host = urlsplit(url).netloc
    before, _, after = url.partition(host) if host else (url, "", "")
    return before, host, after


def _signed(services: Services, job: Any) -> str:
    """Which secret signs the webhook: the job's own before the service's."""
    if job.has_own_secret:
        return "signed with the job's own secret"
    return "signed with the service's secret" if services.settings.webhook_secret else "not signed"


@get("/queue/{job_id:uuid}/{name:str}", include_in_schema=False)
async def download_payload(
    request: Request[Any, Any, Any], job_id: FromPath[UUID], name: FromPath[str]
) -> Response[bytes]:
    """The input or output, whole, as the JSON text that the database has."""
    services = services_of(request)
    column = NAMES.get(name.removesuffix(".json"))
    text = None if column is None else await listing.get_payload(services.database, job_id, column)
    if text is None:
        raise JobNotFound(str(job_id))
    filename = f"{job_id}-{name.removesuffix('.json')}.json"
    return Response(
        text.encode(),
        media_type="application/json",
        headers={"Content-Disposition": f'attachment; filename="{filename}"'},
    )
