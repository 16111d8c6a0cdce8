"""What happens to every request before and after its handler: an id, the secret, one log line, headers.

It stands outside Litestar, so that what no route answers (404, 405) passes through it too.
"""

import math
import re
import time
from collections.abc import Iterable
from typing import Any

import msgspec
import structlog
from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Receive, Scope, Send
from uuid_utils.compat import uuid7

from llm_service.api.auth import SecretCheck, WrongTries, is_guarded, peer_of, sent_secrets
from llm_service.api.errors import envelope
from llm_service.errors import InvalidAPISecret, RequestError, TooManyRequests
from llm_service.logs import get_logger
from llm_service.metrics import REQUEST_SECONDS, REQUESTS, WRONG_SECRETS

log = get_logger("llm_service.access")

USABLE_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
LONGEST_PATH = 300
"""Characters of a path that are logged."""
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
"""Those that are counted by name: a stranger may make up others without end."""
QUIET_ROUTES = ("/health", "/metrics")
SECURITY_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
]


class Edge:
    """The outermost ASGI application."""

    def __init__(self, inner: ASGIApp, check: SecretCheck) -> None:
        self._inner = inner
        self._check = check
        self._wrong = WrongTries()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP:
            await self._inner(scope, receive, send)
            return
        request_id = _request_id(scope)
        scope["state"]["request_id"] = request_id
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=request_id)
        started = time.perf_counter()
        status = 500

        async def send_on(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [
                    *message["headers"],
                    (b"x-request-id", request_id.encode()),
                    *_lacking(message["headers"]),
                ]
            await send(message)

        try:
            refusal = self._refusal(scope) if is_guarded(scope["path"]) else None
            if refusal is not None:
                await _refuse(send_on, refusal)
            else:
                await self._inner(scope, receive, send_on)
        finally:
            _note(scope, status, time.perf_counter() - started)

    def _refusal(self, scope: Any) -> RequestError | None:
        """None for a request with a secret of ours, whose client it notes."""
        sent = sent_secrets(scope["headers"])
        client = self._check.client(sent)
        if client is not None:
            scope["state"]["client"] = client
            return None
        if not any(sent):
            return InvalidAPISecret()
        WRONG_SECRETS.inc()
        # The peer of the connection: X-Forwarded-For may say anything.
        peer = peer_of(str((scope.get("client") or ("",))[0]))
        if not (left_s := self._wrong.note(peer)):
            return InvalidAPISecret()
        log.warning("too many wrong secrets", peer=peer)
        return TooManyRequests(
            "Too many wrong secrets from this address; try again after Retry-After.",
            retry_after_s=math.ceil(left_s),
        )


def _lacking(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """The security headers but for those that the pages under /admin have set in their own words."""
    there = {name.lower() for name, _ in headers}
    return [(name, value) for name, value in SECURITY_HEADERS if name not in there]


def _request_id(scope: Any) -> str:
    sent = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
    return sent.decode() if USABLE_ID.fullmatch(sent) else uuid7().hex


async def _refuse(send: Send, error: RequestError) -> None:
    body = msgspec.json.encode(envelope(error))
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    headers += [(name.lower().encode(), value.encode()) for name, value in error.headers.items()]
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})


def _note(scope: Any, status: int, seconds: float) -> None:
    """Count and log. The query string stays out of the log: it may name a user."""
    route = scope.get("path_template") or "(none)"
    REQUESTS.labels(scope["method"] if scope["method"] in METHODS else "(other)", route, status).inc()
    REQUEST_SECONDS.labels(route).observe(seconds)
    write = log.debug if route.startswith(QUIET_ROUTES) else log.info
    write(
        "request",
        method=scope["method"],
        path=scope["path"][:LONGEST_PATH],
        status=status,
        ms=round(seconds * 1000, 1),
        # Which secret: when an old one was last used.
        **({"client": client} if (client := scope["state"].get("client")) else {}),
    )
