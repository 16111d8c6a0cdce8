"""However many jobs a page shows, it asks PostgreSQL the same number of questions."""

from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg
import pytest
import sqlalchemy as sa
from tests.admin.conftest import Browser

ADD = (
    "INSERT INTO llm_workflow_jobs (id, workflow_name, input_data, status, username, action) "
    "SELECT gen_random_uuid(), 'completion', '{}', 'failed', 'user ' || n, 'action ' || n FROM generate_series(1, $1::int) n"
)


@contextmanager
def statements() -> Iterator[list[str]]:
    """Every statement that this process sends through SQLAlchemy."""
    sent: list[str] = []

    def remember(_: object, __: object, statement: str, *___: object) -> None:
        # Once for each connection, and once in 2 s for all pages, not for each page.
        if "plan_cache_mode" not in statement and "llm_workers" not in statement:
            sent.append(statement)

    sa.event.listen(sa.Engine, "before_cursor_execute", remember)
    try:
        yield sent
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", remember)


@pytest.mark.parametrize(
    "path",
    [
        "/admin/queue?limit=200",
        "/admin/queue/rows?limit=200",
        "/admin/queue?status=failed&limit=200",
        "/admin/insight",
    ],
)
async def test_the_number_of_statements_is_the_same_for_any_number_of_rows(
    admin: Browser, sql: asyncpg.Connection, path: str
) -> None:
    await admin.client.get(path)  # the clock of the database is read now
    numbers = []
    for more in (1, 24, 175):
        await sql.execute(ADD, more)
        with statements() as sent:
            answer = await admin.client.get(path)
        assert answer.status_code == 200, answer.text[:500]
        numbers.append(len(sent))
        for statement in sent:
            assert "input_data" not in statement
            assert ".result" not in statement
    assert len(set(numbers)) == 1, numbers
    assert 1 < numbers[0] <= 12, numbers


async def test_finding_a_session_is_one_statement(admin: Browser) -> None:
    with statements() as sent:
        await admin.client.get("/admin/nothing")
    assert len(sent) == 1, sent
