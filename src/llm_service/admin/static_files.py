"""GET /admin/static/{version}/{name}: the style sheets, scripts and the icon, kept by browsers for ever."""

from pathlib import PurePosixPath
from typing import Any

from litestar import Request, Response, get
from litestar.params import FromPath

from llm_service.admin.html import TYPES, pages_of
from llm_service.errors import RouteNotFound


@get("/static/{version:str}/{name:str}", include_in_schema=False)
async def static_file(
    request: Request[Any, Any, Any], version: FromPath[str], name: FromPath[str]
) -> Response[bytes]:
    pages = pages_of(request)
    if name not in pages.static or version != pages.version:
        raise RouteNotFound("There is nothing at this address.")
    return Response(
        pages.static[name],
        media_type=TYPES[PurePosixPath(name).suffix],
        headers={"Cache-Control": "public, max-age=31536000, immutable"},
    )
