"""The way to PostgreSQL: engine, transactions, the database's clock, and what counts as "away".

Everything that means the server can't serve us now (refused, hung, restarting, full, read-only, no free
connection) leaves here as `ServiceUnavailable`; everything else is a bug and stays what it is.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, TypeVar

import asyncpg
import msgspec
import sqlalchemy as sa
import stamina
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from llm_service.deadline import Deadline
from llm_service.errors import ServiceUnavailable
from llm_service.logs import get_logger

log = get_logger(__name__)

T = TypeVar("T")

AWAY_CLASSES = ("08", "28", "3D", "53", "57", "58")
"""SQLSTATE classes: connection, password, database name, resources (disk, memory, connections), operator, system."""
READ_ONLY = "25006"
LOCK_TIMEOUT = "55P03"


class Limits(NamedTuple):
    """How long a process waits for PostgreSQL, in seconds, and how many connections it holds."""

    pool: int
    connect: float = 2.0
    wait: float = 2.0
    command: float = 5.0
    statement: float = 3.0
    whole: float = 60.0
    """From asking for a connection to having given it back, whatever happens in between."""


API_LIMITS = Limits(pool=10, connect=1.0, wait=2.0, command=2.0, statement=1.8, whole=2.0)
"""Tight enough that a caller has a 503 within 2.5 s, wherever the database hangs, a second try included."""
WORKER_LIMITS = Limits(pool=10, wait=10.0, command=10.0, statement=8.0)
BEAT_LIMITS = Limits(pool=2, command=4.0, statement=4.0, whole=6.0)
"""The heartbeat has its own too, and gives up before the next beat: a hung connection must not hang it."""
HEALTH_LIMITS = Limits(pool=1, wait=1.0, command=1.5, statement=1.0, whole=1.5)
"""Health has a connection of its own: it must answer when the pool is exhausted."""


def _encode_json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


class Database:
    """One process's connections.

    `statement()` is for a single statement and commits by itself; `transaction()` is for several. Neither
    may be open while a model or a webhook is awaited.
    """

    def __init__(self, url: str, limits: Limits, *, name: str) -> None:
        self.engine: AsyncEngine = create_async_engine(
            url,
            pool_size=limits.pool,
            max_overflow=0,
            pool_timeout=limits.wait,
            pool_pre_ping=False,
            json_serializer=_encode_json,
            json_deserializer=msgspec.json.decode,
            connect_args={
                "timeout": limits.connect,
                "command_timeout": limits.command,
                "server_settings": {
                    "application_name": f"llm-service {name}",
                    "timezone": "UTC",
                    "statement_timeout": f"{limits.statement}s",
                    "lock_timeout": "1s",
                    "idle_in_transaction_session_timeout": "10s",
                    "jit": "off",
                },
            },
        )
        self._limits = limits
        sa.event.listen(self.engine.sync_engine, "handle_error", _leave_read_only)
        self._autocommit = self.engine.execution_options(isolation_level="AUTOCOMMIT")
        self.clock = DatabaseClock(self)

    @asynccontextmanager
    async def statement(self) -> AsyncIterator[AsyncConnection]:
        with _naming_absence():
            async with Deadline(self._limits.whole), self._autocommit.connect() as connection:
                yield connection

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        with _naming_absence():
            async with Deadline(self._limits.whole), self.engine.begin() as connection:
                yield connection

    async def close(self) -> None:
        await self.engine.dispose()


class _naming_absence:  # noqa: N801 - reads as a clause: `with _naming_absence()`
    """Turns every way of being away into `ServiceUnavailable`."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Exception) and is_away(error):
            log.warning("database away", error=type(error).__name__, sqlstate=sqlstate_of(error))
            raise ServiceUnavailable from error


def _leave_read_only(context: sa.ExceptionContext) -> None:
    """Drop the pool's connections: after a failover they lead to a server, or a session, that stays read-only."""
    if sqlstate_of(context.original_exception) == READ_ONLY:
        context.is_disconnect = True


def is_away(error: Exception) -> bool:
    """Whether an error of a statement means "not now" and not "never"."""
    if isinstance(error, OSError | asyncio.TimeoutError | PoolTimeout | asyncpg.InterfaceError):
        return True
    if isinstance(error, asyncpg.InternalClientError):
        return True  # the connection broke in the middle of the protocol
    if not isinstance(error, DBAPIError):
        return False
    state = sqlstate_of(error)
    if state is None:
        return error.connection_invalidated or isinstance(
            _driver_error(error), OSError | asyncpg.InterfaceError
        )
    return state.startswith(AWAY_CLASSES) or state in {READ_ONLY, LOCK_TIMEOUT}


def _driver_error(error: DBAPIError) -> BaseException | None:
    return error.orig.__cause__ if error.orig is not None else None


def sqlstate_of(error: BaseException) -> str | None:
    """The five-character SQLSTATE of a database error, wherever it is wrapped; None where there is none."""
    seen: BaseException | None = error
    while seen is not None:
        state = getattr(seen, "sqlstate", None)
        if isinstance(state, str):
            return state
        seen = getattr(seen, "orig", None) or seen.__cause__
    return None


class DatabaseClock:
    """The database's time without asking it each time.

    Remembers how far the database's `now()` is from this process's monotonic clock, so that a wrong or
    jumping clock of this machine changes nothing.
    """

    RESYNC_S = 60.0

    def __init__(self, database: Database) -> None:
        self._database = database
        self._offset: timedelta | None = None
        self._synced_at = 0.0

    async def now(self) -> datetime:
        """The time at the database, timezone-aware, in UTC."""
        if self._offset is None or time.monotonic() - self._synced_at > self.RESYNC_S:
            await self._sync()
        assert self._offset is not None  # noqa: S101 - narrows the type; _sync has set it
        return _monotonic_moment() + self._offset

    async def _sync(self) -> None:
        async with self._database.statement() as connection:
            there = (await connection.execute(sa.select(sa.func.clock_timestamp()))).scalar_one()
        self._offset = there - _monotonic_moment()
        self._synced_at = time.monotonic()


def _monotonic_moment() -> datetime:
    return datetime.fromtimestamp(0, UTC) + timedelta(seconds=time.monotonic())


AT_ONCE_S = 0.3


async def once_more(work: Callable[[], Awaitable[T]]) -> T:
    """Do work that may safely be done twice, again if the database was away and said so at once.

    After a restart of PostgreSQL the first statement on each connection fails; the second finds a new one.
    """
    started = time.monotonic()
    try:
        return await work()
    except ServiceUnavailable:
        if time.monotonic() - started > AT_ONCE_S:
            raise
    return await work()


async def insist(write: Callable[[], Awaitable[T]]) -> T:
    """Repeat a write while the database is away, until it is done or the caller is cancelled.

    For writes of a lease's holder: the heartbeat cancels it when the lease could be somebody else's.
    """
    async for attempt in stamina.retry_context(
        on=ServiceUnavailable, attempts=None, timeout=None, wait_initial=0.05, wait_max=1.0, wait_jitter=0.2
    ):
        with attempt:
            return await write()
    raise AssertionError("stamina yields until it returns or raises")
