"""Who may look into the queue page: a password for each role, sessions that live in PostgreSQL, tokens against forgery.

A token is 256 random bits in a cookie. The database has only its hash, so a copy of the database opens nothing.
The hash is keyed with the password of the session's role: a new password ends the sessions of that role.
"""

import hashlib
import hmac
import secrets
from collections.abc import Mapping
from typing import Any

import msgspec
from litestar import Request

from llm_service.admin import store
from llm_service.admin.errors import ReaderCannotAct, TooManyTries
from llm_service.admin.model import Role
from llm_service.admin.store import Tries
from llm_service.db import Database
from llm_service.logs import get_logger
from llm_service.settings import Secret

log = get_logger(__name__)

FREE_TRIES = 5
"""Wrong passwords before the first wait."""
LONGEST_WAIT_S = 60
MANY_TRIES = 100
"""Wrong passwords from everywhere together, after which one of a peer's own is enough to make it wait."""


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """A browser that is logged in. `name` tells sessions apart in the audit and opens none."""

    token_hash: bytes
    role: Role
    csrf_token: str

    @property
    def may_act(self) -> bool:
        return self.role is Role.ADMIN

    @property
    def name(self) -> str:
        return self.token_hash.hex()[:12]


class Sessions:
    """Opens, finds and closes sessions. `passwords` has one for the admin, and one for readers if there are any."""

    def __init__(self, database: Database, passwords: Mapping[Role, Secret]) -> None:
        self._database = database
        self._passwords = {role: password.reveal().encode() for role, password in passwords.items()}
        self._keys = {
            role: hashlib.sha256(b"llm-service admin\n" + password).digest()
            for role, password in self._passwords.items()
        }

    async def open(
        self, password: str, *, peer: str, instead_of: str | None = None
    ) -> tuple[str, Session] | None:
        """A new session in the role of the password, and its token; None for a wrong password.

        The session of the token `instead_of` ends. Raises `TooManyTries` while the peer has to wait: its
        password is not looked at then, nor counted. A peer that was never wrong never waits.
        """
        token = new_token()
        async with store.login_turn(self._database, peer[:64]) as turn:
            if turn is None:
                raise TooManyTries("Another try from your address is being looked at.", retry_after_s=1)
            refuse_haste(await turn.tries())
            role = self._role_of(password)
            if role is None:
                await turn.wrong()
                return None
            earlier = [] if instead_of is None else list(self._hashes(instead_of).values())
            session = self._session(token, role)
            await turn.right(session.token_hash, role, instead_of=earlier)
        return token, session

    def _role_of(self, password: str) -> Role | None:
        """Compares with every password, in constant time each."""
        sent = password.encode(errors="replace")
        matches = {role: hmac.compare_digest(sent, known) for role, known in self._passwords.items()}
        return next((role for role, same in matches.items() if same), None)

    async def find(self, token: str) -> Session | None:
        """The session of a cookie; None where it never was, has ended, or was idle for 12 hours."""
        hashes = self._hashes(token)
        found = await store.find_session(self._database, list(hashes.values()))
        # The word in the row opens nothing by itself: the hash must have been made with that role's password.
        roles = [role for role, made in hashes.items() if found == (made, role.value)]
        return self._session(token, roles[0]) if roles else None

    async def close(self, token: str) -> None:
        await store.close_session(self._database, list(self._hashes(token).values()))

    def csrf_token(self, token: str) -> str:
        """What a form or script must send along with the cookie; made of its value, also before the login."""
        return hmac.digest(self._keys[Role.ADMIN], b"csrf\n" + token.encode(), "sha256").hex()

    def is_csrf_token(self, sent: str, token: str) -> bool:
        return hmac.compare_digest(sent.encode(errors="replace"), self.csrf_token(token).encode())

    def _session(self, token: str, role: Role) -> Session:
        return Session(token_hash=self._hashes(token)[role], role=role, csrf_token=self.csrf_token(token))

    def _hashes(self, token: str) -> dict[Role, bytes]:
        return {role: hmac.digest(key, token.encode(), "sha256") for role, key in self._keys.items()}


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


def refuse_reader(session: Session, method: str, path: str) -> None:
    """Raises `ReaderCannotAct`, and writes it down: there is no row in the audit for what was not done."""
    if session.may_act:
        return
    log.warning(
        "reader refused", session=session.name, role=session.role.value, method=method, path=path[:200]
    )
    raise ReaderCannotAct


def session_of(request: Request[Any, Any, Any]) -> Session:
    """The session that the guard let in. There is one on every page but the login."""
    session: Session = request.scope["state"]["admin_session"]
    return session


def sessions_of(request: Request[Any, Any, Any]) -> Sessions:
    sessions: Sessions = request.scope["state"]["admin_sessions"]
    return sessions


def is_signed_in(request: Request[Any, Any, Any]) -> bool:
    return request.scope["state"].get("admin_session") is not None


def may_act(request: Request[Any, Any, Any]) -> bool:
    """Whether the page offers what changes something. Refusing it is the guard's affair."""
    return is_signed_in(request) and session_of(request).may_act
