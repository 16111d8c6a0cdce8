"""The list and the page of a job agree at every look, also while jobs change between and during the looks."""

import asyncio
import random
import re
from typing import NamedTuple
from uuid import UUID

import asyncpg
import pytest
from tests.admin.conftest import Browser

LOOKS = 1_000
JOBS = 10
ADD = """
INSERT INTO llm_workflow_jobs (id, workflow_name, input_data, max_attempts, created_at)
SELECT gen_random_uuid(), 'completion', '{}', 10000, now() - n * interval '1 second' FROM generate_series(1, $1::int) n
RETURNING id
"""
CLAIM = """
UPDATE llm_workflow_jobs SET status = 'processing', attempt = attempt + 1, claims = claims + 1, started_at = coalesce(started_at, now()),
       lease_expires_at = now() + interval '1 hour', total_tokens = NULL WHERE id = $1
"""
GIVE_BACK = """
UPDATE llm_workflow_jobs SET status = 'pending', lease_expires_at = NULL, total_tokens = attempt, run_after = now()
 WHERE id = $1
"""


class Seen(NamedTuple):
    """What a page says of a job. A job goes from attempt to attempt here, so what is seen later is never smaller."""

    attempt: int
    is_waiting: bool
    tokens: str


async def keep_moving(url: str, job_ids: list[UUID]) -> None:
    """What workers do to rows, as fast as PostgreSQL takes it: claim a job, give it back."""
    connection = await asyncpg.connect(url)
    chance = random.Random(11)
    try:
        while True:
            job_id = chance.choice(job_ids)
            await connection.execute(CLAIM, job_id)
            await connection.execute(GIVE_BACK, job_id)
    finally:
        await connection.close()


def in_list(page: str) -> dict[str, Seen]:
    rows = re.findall(
        r'<tr role="row" id="job-([0-9a-f-]{36})"[^>]*data-state="(\w+)"(.*?)</tr>', page, re.DOTALL
    )
    return {
        job_id: seen(state, row, r"attempt (\d+)/", r'title="([\d,]+) tokens"') for job_id, state, row in rows
    }


def in_detail(page: str) -> Seen:
    state = re.search(r'data-status="(\w+)"', page)
    assert state is not None
    return seen(state[1], page, r"<dt>Attempt</dt><dd>(\d+) of", r"<dt>Tokens</dt><dd>([\d,]+)</dd>")


def seen(state: str, text: str, attempt: str, tokens: str) -> Seen:
    number = re.search(attempt, text)
    used = re.search(tokens, text)
    # The list leaves the first attempt out, and both leave unknown numbers out.
    first = 1 if state == "processing" or used else 0
    return Seen(int(number[1]) if number else first, state == "pending", used[1] if used else "")


@pytest.mark.timeout(120)
async def test_list_and_detail_agree_over_1000_looks_while_jobs_change(
    admin: Browser, sql: asyncpg.Connection, database_url: str
) -> None:
    """Each look at one job stands between two looks at the list: it must say what one of them says, or a state between."""
    job_ids = [row["id"] for row in await sql.fetch(ADD, JOBS)]
    chance = random.Random(5)
    worker = asyncio.create_task(keep_moving(database_url, job_ids))
    changed = 0
    before = in_list((await admin.client.get("/admin/queue")).text)
    for _ in range(LOOKS // 2):
        job_id = str(chance.choice(job_ids))
        detail = in_detail((await admin.client.get(f"/admin/queue/{job_id}")).text)
        after = in_list((await admin.client.get("/admin/queue")).text)
        assert len(after) == JOBS
        first, last = before[job_id], after[job_id]
        assert first[:2] <= detail[:2] <= last[:2], (job_id, first, detail, last)
        for listed in (first, last):
            assert listed[:2] != detail[:2] or listed == detail, (job_id, listed, detail)
        changed += first != last
        before = after
    assert not worker.done()
    worker.cancel()
    assert changed > 20, "the jobs stood still"
