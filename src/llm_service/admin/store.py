"""Keeper of the queue page's own tables; all times are the database's."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from llm_service.admin.model import Role
from llm_service.db import Database

IDLE = "12 hours"
KEEP_TRIES = "1 day"
RECENTLY = "15 minutes"
LOGIN_LOCK = 0x6C6C6D61
MOST_IDS = 500


# --- logging in -------------------------------------------------------------------------------------------


class Tries(NamedTuple):
    """Wrong passwords of the last quarter of an hour. `quiet_s` is the time since the last one of this peer."""

    of_peer: int
    of_all: int
    quiet_s: float


_LOCK = sa.text("SELECT pg_try_advisory_xact_lock(:lock, hashtext(:peer))")
_TRIES = sa.text(f"""
SELECT count(*), (SELECT count(*) FROM (SELECT FROM llm_admin_logins
                                         WHERE at > now() - interval '{RECENTLY}' LIMIT 1000) AS recent),
       coalesce(CAST(extract(epoch FROM now() - max(at)) AS double precision), 0)
  FROM llm_admin_logins WHERE peer = :peer AND at > now() - interval '{RECENTLY}'
""")  # noqa: S608 - constants
_WRONG = sa.text("INSERT INTO llm_admin_logins (peer) VALUES (:peer)")
_FORGET_PEER = sa.text("DELETE FROM llm_admin_logins WHERE peer = :peer")
_FORGET = (
    sa.text(f"DELETE FROM llm_admin_logins WHERE at < now() - interval '{KEEP_TRIES}'"),  # noqa: S608
    sa.text("DELETE FROM llm_admin_sessions WHERE expires_at <= now()"),
)
_OPEN = sa.text(f"""
INSERT INTO llm_admin_sessions (token_hash, role, expires_at)
VALUES (:token_hash, :role, now() + interval '{IDLE}')
""")  # noqa: S608 - a constant
_CLOSE = sa.text("DELETE FROM llm_admin_sessions WHERE token_hash = ANY(CAST(:token_hashes AS bytea[]))")


class LoginTurn:
    """What is asked and written while no other try of the same peer is looked at."""

    def __init__(self, connection: AsyncConnection, peer: str) -> None:
        self._connection = connection
        self._peer = {"peer": peer}

    async def tries(self) -> Tries:
        return Tries(*(await self._connection.execute(_TRIES, self._peer)).one())

    async def wrong(self) -> None:
        await self._connection.execute(_WRONG, self._peer)

    async def right(self, token_hash: bytes, role: Role, *, instead_of: Sequence[bytes]) -> None:
        """Open a session, now; the browser's earlier one ends."""
        await self._connection.execute(_FORGET_PEER, self._peer)
        for statement in _FORGET:
            await self._connection.execute(statement)
        await self._connection.execute(_CLOSE, {"token_hashes": list(instead_of)})
        await self._connection.execute(_OPEN, {"token_hash": token_hash, "role": role.value})


@asynccontextmanager
async def login_turn(database: Database, peer: str) -> AsyncIterator[LoginTurn | None]:
    """Of many tries at once from one peer, one has its turn; the others get None and must come again."""
    async with database.transaction() as connection:
        got = (await connection.execute(_LOCK, {"lock": LOGIN_LOCK, "peer": peer})).scalar_one()
        yield LoginTurn(connection, peer) if got else None


# --- sessions ---------------------------------------------------------------------------------------------

# A write each minute, not each request: pages that are looked at ask every few seconds.
_FIND = sa.text(f"""
WITH seen AS (
    UPDATE llm_admin_sessions SET last_seen_at = now(), expires_at = now() + interval '{IDLE}'
     WHERE token_hash = ANY(CAST(:token_hashes AS bytea[]))
       AND expires_at > now() AND last_seen_at < now() - interval '1 minute'
)
SELECT token_hash, role FROM llm_admin_sessions
 WHERE token_hash = ANY(CAST(:token_hashes AS bytea[])) AND expires_at > now()
""")  # noqa: S608 - a constant


async def find_session(database: Database, token_hashes: Sequence[bytes]) -> tuple[bytes, str] | None:
    """Hash and role of the session that has one of these hashes; None where there is none, or no more.

    Finding it keeps it alive.
    """
    async with database.statement() as connection:
        row = (await connection.execute(_FIND, {"token_hashes": list(token_hashes)})).one_or_none()
    return None if row is None else (row[0], row[1])


async def close_session(database: Database, token_hashes: Sequence[bytes]) -> None:
    async with database.statement() as connection:
        await connection.execute(_CLOSE, {"token_hashes": list(token_hashes)})


# --- audit ------------------------------------------------------------------------------------------------


class Deed(NamedTuple):
    """An action as it is about to begin. `filter` is the page's query string, None for a selection."""

    session: str
    action: str
    filter: str | None
    job_ids: Sequence[UUID]
    matched: int
    request_id: str | None


_BEGIN = sa.text("""
INSERT INTO llm_admin_audit (session, action, filter, job_ids, matched, request_id)
VALUES (:session, :action, :filter, CAST(:job_ids AS uuid[]), :matched, :request_id) RETURNING id
""")
_GO_ON = sa.text("""
UPDATE llm_admin_audit SET moved_at = now()
 WHERE id = :id AND session = :session AND action = :action AND filter = :filter AND ended_at IS NULL
RETURNING id
""")
_NOTE = sa.text(f"""
UPDATE llm_admin_audit
   SET done = done + :done, skipped = skipped + :skipped, failed = failed + :failed, moved_at = now(),
       ended_at = CASE WHEN :is_over THEN now() END,
       job_ids = (job_ids || CAST(:reached AS uuid[]))[1:{MOST_IDS}]
 WHERE id = :id
""")  # noqa: S608 - a constant


async def begin_deed(database: Database, deed: Deed) -> int:
    """Write down what is about to be done. When this returns it is durable, whatever happens next."""
    async with database.statement() as connection:
        values = deed._asdict() | {"job_ids": list(deed.job_ids[:MOST_IDS])}
        number: int = (await connection.execute(_BEGIN, values)).scalar_one()
    return number


async def go_on_with_deed(database: Database, number: int, deed: Deed) -> bool:
    """Whether there is such a deed of this session under way, in the words it began with."""
    async with database.statement() as connection:
        values = {"id": number, "session": deed.session, "action": deed.action, "filter": deed.filter}
        return (await connection.execute(_GO_ON, values)).first() is not None


async def note_deed(
    database: Database,
    number: int,
    *,
    done: int,
    skipped: int,
    failed: int,
    reached: Sequence[UUID],
    is_over: bool,
) -> None:
    """Add what became of a further batch; with the last one, the deed has ended. `reached` are its jobs."""
    values = {"id": number, "done": done, "skipped": skipped, "failed": failed, "is_over": is_over}
    async with database.statement() as connection:
        await connection.execute(_NOTE, values | {"reached": list(reached[:MOST_IDS])})
