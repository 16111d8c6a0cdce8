"""Which statements reach PostgreSQL, through SQLAlchemy's execution or past it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import asyncpg
import sqlalchemy as sa

AROUND = ("BEGIN", "COMMIT", "ROLLBACK")
NOT_EACH_TIME = ("typeinfo_tree", "current_setting('jit')", "llm_workers")
"""How the driver asks for types that it does not know, once for each connection; the workers, once in 2 s for all."""


@contextmanager
def statements_sent(engine: Any = sa.Engine) -> Iterator[list[str]]:
    """Those of an engine, of all engines by default; what the driver sends by itself is there once it was answered."""
    sent: list[str] = []

    def note(_: object, __: object, statement: str, *___: object) -> None:
        if not any(words in statement for words in NOT_EACH_TIME) and not statement.startswith(AROUND):
            sent.append(statement)

    def note_by_driver(logged: asyncpg.connection.LoggedQuery) -> None:
        note(None, None, logged.query)

    def watch(connection: Any, *_: object) -> None:
        connection.driver_connection.add_query_logger(note_by_driver)

    sa.event.listen(engine, "before_cursor_execute", note)
    sa.event.listen(engine, "checkout", watch)
    try:
        yield sent
    finally:
        sa.event.remove(engine, "before_cursor_execute", note)
        sa.event.remove(engine, "checkout", watch)
