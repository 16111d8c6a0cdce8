"""Who may look into the queue page: one password, sessions that live in PostgreSQL, tokens against forgery.

A token is 256 random bits in a cookie. The database has only its hash, so a copy of the database opens nothing.
"""

import hashlib
import hmac
import secrets
from datetime import datetime
from typing import Any

import msgspec
from litestar import Request

from llm_service.admin import store
from llm_service.admin.errors import TooManyTries
from llm_service.admin.store import Tries
from llm_service.db import Database
from llm_service.settings import Secret

FREE_TRIES = 5
"""Wrong passwords before the first wait."""
LONGEST_WAIT_S = 60
MANY_TRIES = 100
"""Wrong passwords from everywhere together, after which one of a peer's own is enough to make it wait."""


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """A browser that is logged in. `name` tells sessions apart in the audit and opens none."""

    token_hash: bytes
    csrf_token: str
    created_at: datetime

    @property
    def name(self) -> str:
        return self.token_hash.hex()[:12]


class Sessions:
    """Opens, finds and closes sessions. A new password ends all of them: the hashes are keyed with it."""

    def __init__(self, database: Database, password: Secret) -> None:
        self._database = database
        self._password = password.reveal().encode()
        self._key = hashlib.sha256(b"llm-service admin\n" + self._password).digest()

    async def open(self, password: str, *, peer: str, instead_of: str | None = None) -> str | None:
        """The token of a new session; None for a wrong password.

        The session of the token `instead_of` ends. Raises `TooManyTries` while the peer has to wait: its
        password is not looked at then, nor counted. A peer that was never wrong never waits.
        """
        token = new_token()
        async with store.login_turn(self._database, peer[:64]) as turn:
            if turn is None:
                raise TooManyTries("Another try from your address is being looked at.", retry_after_s=1)
            refuse_haste(await turn.tries())
            if not hmac.compare_digest(password.encode(errors="replace"), self._password):
                await turn.wrong()
                return None
            earlier = None if instead_of is None else self._hash(instead_of)
            await turn.right(self._hash(token), instead_of=earlier)
        return token

    async def find(self, token: str) -> Session | None:
        """The session of a cookie; None where it never was, has ended, or was idle for 12 hours."""
        token_hash = self._hash(token)
        created_at = await store.find_session(self._database, token_hash)
        if created_at is None:
            return None
        return Session(token_hash=token_hash, csrf_token=self.csrf_token(token), created_at=created_at)

    async def close(self, token: str) -> None:
        await store.close_session(self._database, self._hash(token))

    def csrf_token(self, token: str) -> str:
        """What a form or script must send along with the cookie; made of its value, also before the login."""
        return hmac.digest(self._key, b"csrf\n" + token.encode(), "sha256").hex()

    def is_csrf_token(self, sent: str, token: str) -> bool:
        return hmac.compare_digest(sent.encode(errors="replace"), self.csrf_token(token).encode())

    def _hash(self, token: str) -> bytes:
        return hmac.digest(self._key, token.encode(), "sha256")


def new_token() -> str:
    return secrets.token_urlsafe(32)


def refuse_haste(tries: Tries) -> None:
    """Raises `TooManyTries`: after the fifth wrong password 1 s, then twice as long each time, a minute at most."""
    excess = tries.of_peer - FREE_TRIES
    if tries.of_peer and tries.of_all >= MANY_TRIES:
        wait = float(LONGEST_WAIT_S)
    elif excess >= 0:
        wait = float(min(2 ** min(excess, 10), LONGEST_WAIT_S))
    else:
        return
    left = wait - tries.quiet_s
    if left > 0:
        seconds = max(1, round(left))
        raise TooManyTries(
            f"Too many wrong passwords from your address. Try again in {seconds} s.", retry_after_s=seconds
        )


def session_of(request: Request[Any, Any, Any]) -> Session:
    """The session that the guard let in. There is one on every page but the login."""
    session: Session = request.scope["state"]["admin_session"]
    return session


def sessions_of(request: Request[Any, Any, Any]) -> Sessions:
    sessions: Sessions = request.scope["state"]["admin_sessions"]
    return sessions


def csrf_token_of(request: Request[Any, Any, Any]) -> str:
    """What the forms of this page carry: of the session, or of the login form's cookie; empty without either."""
    token: str | None = request.scope["state"]["admin_token"]
    return "" if token is None else sessions_of(request).csrf_token(token)


def is_signed_in(request: Request[Any, Any, Any]) -> bool:
    return request.scope["state"].get("admin_session") is not None
