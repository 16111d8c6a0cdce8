"""Which statements reach PostgreSQL, on whatever way through SQLAlchemy or past it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import asyncpg
import sqlalchemy as sa


@contextmanager
def statements_sent(engine: Any = sa.Engine) -> Iterator[list[str]]:
    """Those of an engine, of all engines by default; each is there once it was answered."""
    sent: list[str] = []

    def note(logged: asyncpg.connection.LoggedQuery) -> None:
        sent.append(logged.query)

    def watch(connection: Any, *_: object) -> None:
        connection.driver_connection.add_query_logger(note)

    sa.event.listen(engine, "checkout", watch)
    try:
        yield sent
    finally:
        sa.event.remove(engine, "checkout", watch)
