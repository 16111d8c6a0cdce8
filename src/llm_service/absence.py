"""What counts as PostgreSQL being away, and what is a bug.

Everything that means the server can't serve us now (refused, hung, restarting, full, read-only, no free
connection) is `ServiceUnavailable`; everything else stays what it is.
"""

import asyncio

import asyncpg
from sqlalchemy.dialects.postgresql.asyncpg import AsyncAdapt_asyncpg_dbapi
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from llm_service.errors import ServiceUnavailable
from llm_service.logs import get_logger

log = get_logger(__name__)

AWAY_CLASSES = ("08", "28", "3D", "53", "57", "58")
"""SQLSTATE classes: connection, password, database name, resources (disk, memory, connections), operator, system."""
READ_ONLY = "25006"
LOCK_TIMEOUT = "55P03"
DEADLOCK = "40P01"
NOT_NOW = frozenset({READ_ONLY, LOCK_TIMEOUT, DEADLOCK})


class naming_absence:  # noqa: N801 - reads as a clause: `with naming_absence()`
    """Turns every way of being away into `ServiceUnavailable`."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Exception) and is_away(error):
            log.warning("database away", error=type(error).__name__, sqlstate=sqlstate_of(error))
            raise ServiceUnavailable from error


def is_away(error: Exception) -> bool:
    """Whether an error of a statement means "not now" and not "never"."""
    if isinstance(error, OSError | asyncio.TimeoutError | PoolTimeout | asyncpg.InterfaceError):
        return True
    if isinstance(error, asyncpg.InternalClientError):
        return True  # the connection broke in the middle of the protocol
    if (state := sqlstate_of(error)) is not None:
        return state.startswith(AWAY_CLASSES) or state in NOT_NOW
    if isinstance(error, DBAPIError):
        return error.connection_invalidated or _is_broken(error.orig)
    return _is_broken(error)


def _is_broken(error: BaseException | None) -> bool:
    """Whether SQLAlchemy's view of a driver's error stands for a connection that was lost, or never made."""
    return isinstance(error, AsyncAdapt_asyncpg_dbapi.Error) and isinstance(
        error.__cause__, OSError | asyncpg.InterfaceError
    )


def sqlstate_of(error: BaseException) -> str | None:
    """The five-character SQLSTATE of a database error, wherever it is wrapped; None where there is none."""
    seen: BaseException | None = error
    while seen is not None:
        state = getattr(seen, "sqlstate", None)
        if isinstance(state, str):
            return state
        seen = getattr(seen, "orig", None) or seen.__cause__
    return None
