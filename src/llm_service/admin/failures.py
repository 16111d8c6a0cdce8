"""How an error looks under /admin: a page for who goes there, the envelope of the API for the page's own script."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import structlog
from litestar import Request, Response, get
from litestar.exceptions import HTTPException

from llm_service.admin.html import Pages, pages_of, wants_part
from llm_service.api.errors import on_bug, on_http_exception, on_request_error
from llm_service.errors import RequestError, RouteNotFound

TITLES = {
    400: "This request can't be read",
    403: "This was refused",
    404: "There is nothing here",
    405: "This address does not take that",
    409: "This is not possible any more",
    422: "This request can't be done",
    429: "Too many requests",
    500: "Something went wrong",
    503: "Database unavailable",
}
HELP = {
    409: "Its state has changed meanwhile. Go back to see it as it is now.",
    500: "It is a fault of the service. The request id leads to it in the log.",
    503: "Jobs, counts and sessions can't be read at this moment; workers go on by themselves when it is back.",
}


@get("/{rest:path}", include_in_schema=False)
async def anything_else() -> None:
    raise RouteNotFound("There is no page at this address.")


def _on_request_error(request: Request[Any, Any, Any], error: RequestError) -> Response[Any]:
    plain = on_request_error(request, error)
    return _page(request, plain, error.message)


def _on_http_exception(request: Request[Any, Any, Any], error: HTTPException) -> Response[Any]:
    return _page(request, on_http_exception(request, error), error.detail if error.status_code < 500 else "")


def _on_bug(request: Request[Any, Any, Any], error: Exception) -> Response[Any]:
    return _page(request, on_bug(request, error), "")


def _page(request: Request[Any, Any, Any], plain: Response[Any], message: str) -> Response[Any]:
    if wants_part(request):
        return plain
    status = plain.status_code or 500
    headers = {name: value for name, value in plain.headers.items() if name.lower() == "retry-after"}
    return pages_of(request).answer(
        request,
        "error.html",
        status=status,
        headers=headers,
        heading=TITLES.get(status, TITLES[500]),
        message=message,
        help=HELP.get(status, ""),
        again=request.method == "GET" and status >= 429,
        request_id=structlog.contextvars.get_contextvars().get("request_id", ""),
    )


def page_at_the_door(pages: Pages) -> Callable[[Any, RequestError], str]:
    """The page for what the guard refuses: nothing is known of a session there."""

    def html(scope: Any, error: RequestError) -> str:
        return pages.render(
            "error.html",
            now=datetime.now(UTC),
            csrf_token="",
            is_signed_in=False,
            heading=TITLES.get(error.status, TITLES[500]),
            message=error.message,
            help=HELP.get(error.status, ""),
            again=scope["method"] == "GET" and error.status >= 429,
            request_id=scope["state"].get("request_id", ""),
        )

    return html


EXCEPTION_HANDLERS: dict[int | type[Exception], Any] = {
    RequestError: _on_request_error,
    HTTPException: _on_http_exception,
    Exception: _on_bug,
}
