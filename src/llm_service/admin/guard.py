"""Stands before everything under /admin, whether a route answers there or not: who comes in, and what goes out.

In: a session, except for the login and the static files; for what changes something, also a token that only our
own pages know, no sign of another site, and a session that may act. Out: the headers that keep foreign script and
foreign frames away.
"""

import re
from collections.abc import Callable, Iterable
from ipaddress import ip_address
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import msgspec
from litestar import Request
from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from llm_service.admin.errors import RequestRefused, SessionNeeded
from llm_service.admin.sessions import Sessions, new_token, refuse_reader
from llm_service.api.errors import envelope
from llm_service.errors import BodyTooLarge, RequestError, RouteNotFound, ServiceUnavailable

ADMIN = "/admin"
LOGIN = re.compile(r"/admin/?")
STATIC = re.compile(r"/admin/static(/[A-Za-z0-9_][A-Za-z0-9._-]*)+")
READING = frozenset({"GET", "HEAD", "OPTIONS"})
COMING_AND_GOING = frozenset({"/admin", "/admin/", "/admin/logout"})
"""Where a reader may post."""
FORM = b"application/x-www-form-urlencoded"
MAX_FORM = 64 * 1024
MAX_FIELDS = 20
TOKEN = re.compile(r"[A-Za-z0-9_-]{43}")
CSRF_HEADER = b"x-csrf-token"
CSRF_FIELD = "csrf_token"

HEADERS = [
    (
        b"content-security-policy",
        (
            b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
            b"form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
        ),
    ),
    (b"cross-origin-opener-policy", b"same-origin"),
]
"""Beside those that every answer gets at the edge."""
HSTS = (b"strict-transport-security", b"max-age=31536000")


ErrorPage = Callable[[Any, RequestError], str]
"""The HTML of an error, of the request's ASGI scope and what was wrong."""


class AdminGuard:
    """An ASGI application around the one that has the pages. Without sessions (no password) there is no /admin."""

    def __init__(self, inner: ASGIApp, sessions: Sessions | None, error_page: ErrorPage) -> None:
        self._inner = inner
        self._sessions = sessions
        self._error_page = error_page

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP or not is_admin(scope["path"]):
            await self._inner(scope, receive, send)
            return
        send_on = _dressed(scope, send)
        try:
            await self._let_in(scope, receive)
        except _ToLogin as login:
            await _redirect(send_on, login.where)
        except RequestError as error:
            await _refuse(scope, send_on, error, self._error_page)
        else:
            await self._inner(scope, receive, send_on)

    async def _let_in(self, scope: Any, receive: Receive) -> None:
        """Raises `_ToLogin` or a `RequestError` for who stays outside."""
        sessions = self._sessions
        if sessions is None:
            raise RouteNotFound("There is nothing at this address.")
        state = scope["state"]
        state["admin_sessions"] = sessions
        state["admin_token"] = token = cookie_token(scope)
        if STATIC.fullmatch(scope["path"]) and scope["method"] in READING:
            return
        refuse_open_line(scope)
        if scope["method"] not in READING:
            refuse_other_sites(scope)
            await self._check_csrf(sessions, scope, receive)
        session = None if token is None else await sessions.find(token)
        state["admin_session"] = session
        if session is None and not LOGIN.fullmatch(scope["path"]):
            if is_fetch(scope):
                raise SessionNeeded
            raise _ToLogin(login_address(scope))
        # By method and not by route: a new one is closed to readers until it is listed.
        if session is not None and scope["method"] not in READING and scope["path"] not in COMING_AND_GOING:
            refuse_reader(session, scope["method"], scope["path"])

    async def _check_csrf(self, sessions: Sessions, scope: Any, receive: Receive) -> None:
        token = scope["state"]["admin_token"]
        sent = [value.decode("latin-1") for name, value in scope["headers"] if name == CSRF_HEADER]
        if _header(scope, b"content-type").startswith(FORM):
            pairs = read_form(await _read(receive))
            scope["state"]["admin_form"] = dict(pairs)
            sent = sent or [value for name, value in pairs if name == CSRF_FIELD]
        if token is None or len(sent) != 1 or not sessions.is_csrf_token(sent[0], token):
            raise RequestRefused("This page is out of date. Load it again, and repeat what you did.")


class _ToLogin(Exception):
    """Not an error: a way to go."""

    def __init__(self, where: str) -> None:
        super().__init__(where)
        self.where = where


# --- reading the request ----------------------------------------------------------------------------------


def is_admin(path: str) -> bool:
    """Whether a path belongs to the pages, in whatever spelling: doubled slashes and case do not open a door."""
    squeezed = "/" + "/".join(part for part in path.lower().split("/") if part not in {"", "."})
    return squeezed == ADMIN or squeezed.startswith(ADMIN + "/")


def is_fetch(scope: Any) -> bool:
    """Whether a script of the pages asks, which wants an error as JSON and no redirect."""
    return _header(scope, b"x-requested-with") == b"fetch"


def is_secure(scope: Any) -> bool:
    """Whether the request came over TLS: to us, or to a proxy that the settings trust to say so."""
    return bool(scope["scheme"] == "https")


def cookie_name(scope: Any) -> str:
    """Browsers take `__Host-` only over TLS; without it, only on this machine, there is no one to plant it."""
    return "__Host-llm_admin" if is_secure(scope) else "llm_admin"


def cookie_token(scope: Any) -> str | None:
    """The value of our cookie; None where it is missing or not of our making.

    Not read by `http.cookies`: before Python 3.11.10 a long quoted value keeps it busy for minutes.
    """
    pairs = (pair.strip().partition(b"=") for pair in _header(scope, b"cookie").split(b";"))
    name = cookie_name(scope).encode()
    values = [value.decode("latin-1") for key, _, value in pairs if key == name]
    return values[-1] if values and TOKEN.fullmatch(values[-1]) else None


def token_or_new(scope: Any) -> str:
    """The value for the cookie of a login form: what the browser has, else a new one that opens nothing yet."""
    token: str | None = scope["state"]["admin_token"]
    return token or new_token()


def set_cookie(scope: Any, token: str | None) -> str:
    """The header value that gives the browser a token, or takes its cookie away."""
    secure = "; Secure" if is_secure(scope) else ""
    gone = "; Max-Age=0" if token is None else ""
    return f"{cookie_name(scope)}={token or ''}; Path=/; HttpOnly; SameSite=Strict{secure}{gone}"


def local_path(text: str | None) -> str:
    """Where to go after the login: a page of ours as it was asked for, else the queue."""
    wanted = text or ""
    is_ours = wanted.startswith("/admin/") and ".." not in wanted and "//" not in wanted.partition("?")[0]
    return wanted if is_ours and re.fullmatch(r"[!-\[\]-~]{1,2000}", wanted) else "/admin/queue"


def login_address(scope: Any) -> str:
    """The login that leads back to this page; a form that was sent is not repeated."""
    query = scope["query_string"].decode("latin-1")
    wanted = scope["path"] + (f"?{query}" if query else "")
    if scope["method"] not in READING or local_path(wanted) != wanted:
        return ADMIN
    return f"{ADMIN}?{urlencode({'next': wanted})}"


# --- refusing ---------------------------------------------------------------------------------------------


def refuse_open_line(scope: Any) -> None:
    if not is_secure(scope) and not _is_loopback(_host(scope)):
        raise RequestRefused(
            "The LLM Queue page is served over https, or on this machine as http://127.0.0.1 or http://localhost. "
            "Behind a proxy that ends TLS, set LLM_SERVICE_TRUSTED_PROXIES to its address."
        )


def refuse_other_sites(scope: Any) -> None:
    """For what changes something: the browser itself must say that one of our pages asks, if it says anything.

    Our pages send no referrer, and for their forms that makes browsers write `Origin: null`. It counts only with
    Sec-Fetch-Site, which no page can set: a sandboxed or foreign frame is `cross-site` there.
    """
    site = _header(scope, b"sec-fetch-site")
    origin = _header(scope, b"origin")
    if site not in {b"", b"same-origin", b"none"}:
        raise RequestRefused("This request came from another site.")
    if not origin or (origin == b"null" and site == b"same-origin"):
        return
    if not _is_own_origin(scope, origin.decode("latin-1")):
        raise RequestRefused("This request came from another site.")


def _is_own_origin(scope: Any, origin: str) -> bool:
    return origin.lower() == f"{scope['scheme']}://{_host(scope)}"


def _host(scope: Any) -> str:
    return _header(scope, b"host").decode("latin-1").lower()


def _is_loopback(host: str) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name == "localhost" or ip_address(name).is_loopback
    except ValueError:
        return False


def _header(scope: Any, name: bytes) -> bytes:
    """One value; what was sent more than once is joined, and so equals nothing that is expected."""
    return b", ".join(value for key, value in scope["headers"] if key == name)


def read_form(body: bytes) -> list[tuple[str, str]]:
    """The fields of a form. Not by Litestar's `request.form()`: it remembers the last thousand of anybody's."""
    try:
        return parse_qsl(body.decode(errors="replace"), keep_blank_values=True, max_num_fields=MAX_FIELDS)
    except ValueError:
        raise BodyTooLarge from None


def form_of(request: Request[Any, Any, Any]) -> dict[str, str]:
    """The form that came with the request; empty without one."""
    form: dict[str, str] = request.scope["state"].get("admin_form", {})
    return form


async def _read(receive: Receive) -> bytes:
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return b""  # the browser went away
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > MAX_FORM:
            raise BodyTooLarge
        if not message.get("more_body", False):
            return b"".join(parts)


# --- answering --------------------------------------------------------------------------------------------


def _dressed(scope: Any, send: Send) -> Send:
    """Sends on with our headers."""
    ours = [*HEADERS, *([HSTS] if is_secure(scope) else [])]

    async def send_on(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = merged(message["headers"], ours)
        await send(message)

    return send_on


Pairs = list[tuple[bytes, bytes]]


def merged(sent: Iterable[tuple[bytes, bytes]], ours: Pairs) -> Pairs:
    """Ours in place of what a route said."""
    names = {name for name, _ in ours}
    return [*((name, value) for name, value in sent if name.lower() not in names), *ours]


async def _redirect(send: Send, where: str) -> None:
    headers = [(b"location", where.encode()), (b"content-length", b"0")]
    await send({"type": "http.response.start", "status": 303, "headers": headers})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _refuse(scope: Any, send: Send, error: RequestError, error_page: ErrorPage) -> None:
    """A page for who goes there, as far as they may know that there are pages; else the envelope."""
    is_page = isinstance(error, RequestRefused | ServiceUnavailable) and not is_fetch(scope)
    body = error_page(scope, error).encode() if is_page else msgspec.json.encode(envelope(error))
    kind = b"text/html; charset=utf-8" if is_page else b"application/json"
    headers = [(b"content-type", kind), (b"content-length", str(len(body)).encode())]
    headers += [(name.lower().encode(), value.encode()) for name, value in error.headers.items()]
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})
