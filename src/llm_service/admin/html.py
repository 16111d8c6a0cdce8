"""Makes the pages: the templates, what all of them are given, and the addresses of the static files."""

import asyncio
import hashlib
from datetime import UTC, datetime
from importlib.resources import files
from typing import Any

import msgspec
from jinja2 import Environment, PackageLoader, StrictUndefined
from litestar import MediaType, Request, Response

from llm_service.admin.deeds import ACTIONS
from llm_service.admin.query import LIMITS, STATUSES, TIMES
from llm_service.admin.sessions import is_signed_in, may_act, sessions_of
from llm_service.admin.view import FILTERS

DEEDS = tuple(ACTIONS)
PARTS_AT_ONCE = 200
"""Of some 1,600 that a list of 25 jobs is made of, in 2 ms: no submit waits for all of them."""
TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


def _read_static() -> dict[str, bytes]:
    folder = files("llm_service.admin") / "static"
    return {entry.name: entry.read_bytes() for entry in folder.iterdir() if entry.name.endswith(tuple(TYPES))}


class Pages:
    """The templates and static files of one process, read once."""

    def __init__(self) -> None:
        self.static = _read_static()
        self.version = hashlib.blake2b(
            b"".join(name.encode() + body for name, body in sorted(self.static.items())), digest_size=6
        ).hexdigest()
        """In every address of a static file: a changed file has a new address, so each may be kept for ever."""
        self._templates = Environment(
            loader=PackageLoader("llm_service.admin"),
            autoescape=True,
            auto_reload=False,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.filters.update(FILTERS)
        self._templates.globals.update(
            static=lambda name: f"/admin/static/{self.version}/{name}",
            LIMITS=LIMITS,
            STATUSES=STATUSES,
            TIMES={name: label for name, (label, _) in TIMES.items()},
            DEEDS=DEEDS,
        )

    def render(self, template: str, **context: Any) -> str:
        return self._templates.get_template(template).render(**context)

    def answer(
        self,
        request: Request[Any, Any, Any],
        template: str,
        *,
        status: int = 200,
        headers: dict[str, str] | None = None,
        now: datetime | None = None,
        **context: Any,
    ) -> Response[str]:
        """A page, or a part of one. `now` is the database's time, or this machine's where that is out of reach."""
        body = self.render(template, **(_common(request, now) | context))
        return Response(body, status_code=status, headers=headers, media_type=MediaType.HTML)

    async def answer_in_turns(
        self,
        request: Request[Any, Any, Any],
        template: str,
        *,
        headers: dict[str, str] | None = None,
        now: datetime,
        **context: Any,
    ) -> Response[str]:
        """The same for what is long and asked for often: others have their turn while it is put together."""
        parts: list[str] = []
        made = self._templates.get_template(template).generate(**(_common(request, now) | context))
        for number, part in enumerate(made, 1):
            parts.append(part)
            if number % PARTS_AT_ONCE == 0:
                await asyncio.sleep(0)
        return Response("".join(parts), headers=headers, media_type=MediaType.HTML)


def _common(request: Request[Any, Any, Any], now: datetime | None) -> dict[str, Any]:
    """What every template is given."""
    state = request.scope["state"]
    token = state.get("admin_token")
    return {
        "now": now or datetime.now(UTC),
        "csrf_token": "" if token is None else sessions_of(request).csrf_token(token),
        "request_id": state.get("request_id", ""),
        "is_signed_in": is_signed_in(request),
        "may_act": may_act(request),
    }


def pages_of(request: Request[Any, Any, Any]) -> Pages:
    pages: Pages = request.app.state.pages
    return pages


def wants_part(request: Request[Any, Any, Any]) -> bool:
    """Whether the page itself asks, by script, and not somebody who goes there."""
    return request.headers.get("x-requested-with") == "fetch"


def etag_of(value: object) -> str:
    return f'"{hashlib.blake2b(msgspec.json.encode(value), digest_size=10).hexdigest()}"'
