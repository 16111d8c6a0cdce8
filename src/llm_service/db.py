"""The way to PostgreSQL: engine, statements, transactions, and the database's clock.

A server that can't serve us now leaves here as `ServiceUnavailable`; what counts as that stands in absence.py.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar

import asyncpg
import msgspec
import sqlalchemy as sa
import stamina
from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from llm_service.absence import READ_ONLY, naming_absence, sqlstate_of
from llm_service.deadline import Deadline
from llm_service.errors import ServiceUnavailable
from llm_service.logs import get_logger

log = get_logger(__name__)

T = TypeVar("T")


class Limits(NamedTuple):
    """How long a process waits for PostgreSQL, in seconds, and how many connections it holds."""

    pool: int
    connect: float = 2.0
    wait: float = 2.0
    command: float = 5.0
    statement: float = 3.0
    whole: float = 60.0
    """From asking for a connection to having given it back, whatever happens in between."""
    plans: str = "auto"
    """PostgreSQL's plan_cache_mode."""


API_LIMITS = Limits(
    pool=10, connect=1.0, wait=2.0, command=2.0, statement=1.8, whole=2.0, plans="force_custom_plan"
)
"""Tight enough that a caller has a 503 within 2.5 s, wherever the database hangs, a second try included.

Plans are made for the values: from its sixth run on, PostgreSQL may plan a prepared statement once for all, and a
plan for the average user sorts all that the busiest one ever did.
"""
WORKER_LIMITS = Limits(pool=10, wait=10.0, command=10.0, statement=8.0)
BEAT_LIMITS = Limits(pool=2, command=4.0, statement=4.0, whole=6.0)
"""The heartbeat has its own too, and gives up before the next beat: a hung connection must not hang it."""
HEALTH_LIMITS = Limits(pool=1, wait=1.0, command=1.5, statement=1.0, whole=1.5)
"""Health has a connection of its own: it must answer when the pool is exhausted."""


def _encode_json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


class Database:
    """One process's connections.

    `statement()` is for a single statement and commits by itself, `fetch()` the same where it is hot;
    `transaction()` is for several. None may be open while a model or a webhook is awaited.
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
                    "plan_cache_mode": limits.plans,
                },
            },
        )
        self._limits = limits
        self._turn = _Turn(limits)
        self._distrusted_at = 0.0
        sa.event.listen(self.engine.sync_engine, "handle_error", _leave_read_only)
        sa.event.listen(self.engine.sync_engine, "connect", _note_age)
        sa.event.listen(self.engine.sync_engine, "checkout", self._refuse_distrusted)
        self._autocommit = self.engine.execution_options(isolation_level="AUTOCOMMIT")
        self.clock = DatabaseClock(self)

    @asynccontextmanager
    async def statement(self) -> AsyncIterator[AsyncConnection]:
        with naming_absence():
            async with Deadline(self._limits.whole), self._turn, self._autocommit.connect() as connection:
                yield connection

    async def fetch(self, statement: sa.ClauseElement, values: Mapping[str, Any]) -> "list[Row]":
        """Run a single statement, which commits by itself, past SQLAlchemy's execution: a third of the CPU.

        The connection is one of the same pool. The statement must be the same object each time: it is compiled once.
        """
        sql, names = _written_out(statement)
        with naming_absence():
            async with Deadline(self._limits.whole), self._turn:
                pooled = await self.engine.raw_connection()
                driver: asyncpg.Connection = pooled.driver_connection
                try:
                    rows: list[Row] = await driver.fetch(
                        sql, *[values[name] for name in names], record_class=Row
                    )
                except BaseException as error:
                    self._distrust(pooled, error)
                    raise
                finally:
                    pooled.close()
        return rows

    def _distrust(self, pooled: Any, error: BaseException) -> None:
        """What to do about a connection after an error, and about those of the pool that are as old."""
        is_closed = pooled.driver_connection.is_closed()
        if is_closed or sqlstate_of(error) == READ_ONLY:
            self._distrusted_at = time.monotonic()  # what ended it has ended the others
        if is_closed or not isinstance(error, asyncpg.PostgresError):
            pooled.invalidate()  # nobody knows what its server still does

    def _refuse_distrusted(self, _: object, record: Any, __: object) -> None:
        """The pool opens another connection instead."""
        if record.info["opened_at"] <= self._distrusted_at:
            raise DisconnectionError

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        with naming_absence():
            async with Deadline(self._limits.whole), self._turn, self.engine.begin() as connection:
                yield connection

    async def close(self) -> None:
        await self.engine.dispose()


class _Turn:
    """Who asked first gets a connection first.

    The pool alone hands a free one to whoever comes by, and those who wait for it begin anew at the end of the line.
    """

    def __init__(self, limits: Limits) -> None:
        self._free = asyncio.Semaphore(limits.pool)
        self._wait_s = limits.wait

    async def __aenter__(self) -> None:
        if not self._free.locked():
            await self._free.acquire()
            return
        async with asyncio.timeout(self._wait_s):
            await self._free.acquire()

    async def __aexit__(self, *_: object) -> None:
        self._free.release()


def _note_age(_: object, record: Any) -> None:
    record.info["opened_at"] = time.monotonic()


class Row(asyncpg.Record):  # type: ignore[misc]
    """A row as the driver reads it, its columns by name, number and slice."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


@lru_cache(maxsize=2048)
def _written_out(statement: sa.ClauseElement) -> tuple[str, list[str]]:
    """A statement as the driver wants it, and the names of its values in their order."""
    compiled: Any = statement.compile(dialect=PGDialect_asyncpg())  # type: ignore[no-untyped-call]
    return compiled.string, list(compiled.positiontup or ())


def _leave_read_only(context: sa.ExceptionContext) -> None:
    """Drop the pool's connections: after a failover they lead to a server, or a session, that stays read-only."""
    if sqlstate_of(context.original_exception) == READ_ONLY:
        context.is_disconnect = True


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
    with suppress(ServiceUnavailable):
        return await write()
    async for attempt in stamina.retry_context(
        on=ServiceUnavailable, attempts=None, timeout=None, wait_initial=0.05, wait_max=1.0, wait_jitter=0.2
    ):
        with attempt:
            return await write()
    raise AssertionError("stamina yields until it returns or raises")
