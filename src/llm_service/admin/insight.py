"""GET /admin/insight, the charts over the list, and GET /admin/suggestions, the values a filter may take."""

import asyncio
from typing import Any, get_args

import msgspec
from litestar import Request, Response, get

from llm_service.admin.charts import bars_of, scale_of
from llm_service.admin.html import pages_of
from llm_service.admin.polling import refuse_haste
from llm_service.admin.query import read_query
from llm_service.api.services import services_of
from llm_service.errors import ValidationError
from llm_service.jobs.store import insight

COLUMNS: dict[str, insight.Column] = {
    "action": "action",
    "user": "username",
    "workflow": "workflow_name",
    "error": "error_code",
}
"""The page's names of the filters and the columns they are about."""
assert set(COLUMNS.values()) == set(get_args(insight.Column))  # noqa: S101 - of constants


@get("/insight", include_in_schema=False)
async def show_insight(request: Request[Any, Any, Any]) -> Response[Any]:
    """The chart of jobs over time; with `part=all` also who failed, who used what, and how long it took."""
    database = services_of(request).database
    query = read_query(request.scope["query_string"].decode("ascii", "replace"))
    refuse_haste(request, f"insight {query.text()}")
    now = await database.clock.now()
    window = insight.chart_window(query.filters(now), now)
    wants_all = request.query_params.get("part") == "all"
    buckets = await insight.throughput(database, window)
    context: dict[str, Any] = {"more": wants_all}
    if wants_all:
        actions, errors, users, timings = await asyncio.gather(
            insight.failures_by_action(database, window),
            insight.failures_by_error(database, window),
            insight.top_users(database, window),
            insight.timings(database, window),
        )
        context |= {"actions": actions, "errors": errors, "users": users, "timings": timings}
    return pages_of(request).answer(
        request,
        "_insight.html",
        now=now,
        query=query,
        window=window,
        bars=bars_of(buckets, window),
        scale=scale_of(buckets),
        **context,
    )


class Suggestion(msgspec.Struct, frozen=True):
    value: str
    count: int


@get("/suggestions", include_in_schema=False)
async def show_suggestions(request: Request[Any, Any, Any]) -> list[Suggestion]:
    """The commonest values of `column` (the page's name of it) among the newest jobs under the other filters."""
    params = request.query_params
    if (column := COLUMNS.get(params.get("column", ""))) is None:
        raise ValidationError(f"must be one of: {', '.join(COLUMNS)}", ["query", "column"])
    database = services_of(request).database
    query = read_query(params.get("filter", ""))
    found = await insight.suggestions(
        database, column, query.filters(await database.clock.now()), params.get("prefix", "")[:100]
    )
    return [Suggestion(value, count) for value, count in found]
