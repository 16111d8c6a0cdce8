"""GET and POST /admin, the login, and POST /admin/logout. The guard has checked the form's token before."""

from typing import Any

from litestar import Request, Response, get, post
from litestar.response import Redirect

from llm_service.admin.guard import form_of, local_path, set_cookie, token_or_new
from llm_service.admin.html import pages_of
from llm_service.admin.sessions import is_signed_in, session_of, sessions_of
from llm_service.api.auth import peer_of
from llm_service.errors import RequestError
from llm_service.logs import get_logger

log = get_logger(__name__)

WRONG = "That is not the password."


@get("/", include_in_schema=False)
async def login_page(request: Request[Any, Any, Any]) -> Response[Any]:
    wanted = local_path(request.query_params.get("next"))
    if is_signed_in(request):
        return Redirect(wanted, status_code=303)
    return _form(request, wanted)


@post("/", include_in_schema=False)
async def login(request: Request[Any, Any, Any]) -> Response[Any]:
    """Compare the password; a right one gets a new token, whatever the browser had before."""
    form = form_of(request)
    wanted = local_path(form.get("next"))
    earlier: str | None = request.scope["state"]["admin_token"]
    peer = peer_of(request.client.host) if request.client is not None else ""
    try:
        opened = await sessions_of(request).open(form.get("password", ""), peer=peer, instead_of=earlier)
    except RequestError as error:
        return _form(request, wanted, status=error.status, error=error.message, headers=error.headers)
    if opened is None:
        log.warning("wrong admin password", peer=peer)
        return _form(request, wanted, status=401, error=WRONG)
    token, session = opened
    log.info("admin logged in", peer=peer, session=session.name, role=session.role.value)
    return Redirect(wanted, status_code=303, headers={"Set-Cookie": set_cookie(request.scope, token)})


@post("/logout", include_in_schema=False)
async def logout(request: Request[Any, Any, Any]) -> Response[Any]:
    await sessions_of(request).close(request.scope["state"]["admin_token"])
    session = session_of(request)
    log.info("admin logged out", session=session.name, role=session.role.value)
    return Redirect("/admin", status_code=303, headers={"Set-Cookie": set_cookie(request.scope, None)})


def _form(
    request: Request[Any, Any, Any],
    wanted: str,
    *,
    status: int = 200,
    error: str | None = None,
    headers: dict[str, str] | None = None,
) -> Response[Any]:
    """The login form, with a cookie that its token is made of: it opens nothing."""
    token = token_or_new(request.scope)
    request.scope["state"]["admin_token"] = token
    cookie = {"Set-Cookie": set_cookie(request.scope, token)}
    return pages_of(request).answer(
        request, "login.html", status=status, headers={**(headers or {}), **cookie}, error=error, next=wanted
    )
