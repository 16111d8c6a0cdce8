"""However many jobs a page shows, it asks PostgreSQL the same number of questions."""

import asyncpg
import pytest
from tests.admin.conftest import Browser
from tests.statements import statements_sent

ADD = (
    "INSERT INTO llm_workflow_jobs (id, workflow_name, input_data, status, username, action) "
    "SELECT gen_random_uuid(), 'completion', '{}', 'failed', 'user ' || n, 'action ' || n FROM generate_series(1, $1::int) n"
)


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
        with statements_sent() as sent:
            answer = await admin.client.get(path)
        assert answer.status_code == 200, answer.text[:500]
        numbers.append(len(sent))
        for statement in sent:
            assert "input_data" not in statement
            assert ".result" not in statement
    assert len(set(numbers)) == 1, (numbers, sent)
    assert 1 < numbers[0] <= 12, numbers


STORY = "01981c5e-0000-7000-8000-000000000001"
_JOBS = "INSERT INTO llm_workflow_jobs (id, workflow_name, input_data, status, username) "
_NUMBERS = "FROM generate_series($1::int, $2::int) n"
JOB_WITH_A_STORY = [
    f"{_JOBS} VALUES ('{STORY}', 'completion', '{{}}', 'failed', 'user 1')",
    f"INSERT INTO llm_webhook_deliveries (job_id, webhook_id, event) VALUES ('{STORY}', 'msg_1', 'workflow.failed')",
]
ADD_TO_STORY = [
    f"INSERT INTO llm_job_attempts (job_id, claim, worker) SELECT '{STORY}', n, 'w' {_NUMBERS}",
    f"INSERT INTO llm_calls (job_id, claim, step, provider, model) SELECT '{STORY}', n, 'step ' || n, 'p', 'm' {_NUMBERS}",
    f"INSERT INTO llm_webhook_attempts (job_id, number) SELECT '{STORY}', n {_NUMBERS}",
    f"{_JOBS} SELECT gen_random_uuid(), 'completion', '{{}}', 'failed', 'user 1' {_NUMBERS}",
]
"""Attempts, calls, tries of the webhook, and other jobs of the same user."""


async def test_the_page_of_a_job_takes_the_same_statements_for_any_length_of_its_story(
    admin: Browser, sql: asyncpg.Connection
) -> None:
    for statement in JOB_WITH_A_STORY:
        await sql.execute(statement)
    numbers = []
    for first, last in ((1, 1), (2, 25), (26, 200)):
        for statement in ADD_TO_STORY:
            await sql.execute(statement, first, last)
        await admin.client.get(f"/admin/queue/{STORY}")  # settings of new connections
        with statements_sent() as sent:
            answer = await admin.client.get(f"/admin/queue/{STORY}")
        assert f"Attempt {last}</bdi>" in answer.text
        assert f"step {last}</bdi>" in answer.text
        numbers.append(len(sent))
    assert len(set(numbers)) == 1, (numbers, sent)
    assert 1 < numbers[0] <= 12, numbers


async def test_finding_a_session_is_one_statement(admin: Browser) -> None:
    with statements_sent() as sent:
        await admin.client.get("/admin/nothing")
    assert len(sent) == 1, sent
