"""Which statements reach PostgreSQL, through SQLAlchemy's execution or past it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import asyncpg
import sqlalchemy as sa

AROUND = ("BEGIN", "COMMIT", "ROLLBACK")
OF_THE_DRIVER = ("typeinfo_tree", "current_setting('jit')")
"""How the driver, once for each connection, asks for types that it does not know."""


@contextmanager
def statements_sent(engine: Any = sa.Engine) -> Iterator[list[str]]:
    """Those of an engine, of all engines by default; what the driver sends by itself is there once it was answered."""
    sent: list[str] = []

    def note(_: object, __: object, statement: str, *___: object) -> None:
        sent.append(statement)

    def note_by_driver(logged: asyncpg.connection.LoggedQuery) -> None:
        of_the_driver = any(words in logged.query for words in OF_THE_DRIVER)
        if not of_the_driver and not logged.query.startswith(AROUND):
            sent.append(logged.query)

    def watch(connection: Any, *_: object) -> None:
        connection.driver_connection.add_query_logger(note_by_driver)

    sa.event.listen(engine, "before_cursor_execute", note)
    sa.event.listen(engine, "checkout", watch)
    try:
        yield sent
    finally:
        sa.event.remove(engine, "before_cursor_execute", note)
        sa.event.remove(engine, "checkout", watch)
