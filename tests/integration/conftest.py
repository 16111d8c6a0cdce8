"""What the tests of running jobs share."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

import asyncpg
import msgspec
import pytest
from uuid_utils.compat import uuid7

from llm_service.db import Database
from llm_service.jobs.queue import JobQueue
from llm_service.jobs.store import intake
from llm_service.jobs.store.intake import Accepted, NewJob
from llm_service.jobs.store.leases import Hint

Submit = Callable[..., Awaitable[UUID]]
WaitFor = Callable[..., Awaitable[asyncpg.Record]]


@pytest.fixture
def submit(database: Database, queue: JobQueue) -> Submit:
    """Commit a job and wake a worker, as the API does."""

    async def commit(
        workflow_name: str = "completion",
        request: dict[str, Any] | None = None,
        *,
        wake: bool = True,
        **fields: Any,
    ) -> UUID:
        request = request if request is not None else {"prompt": "The river Svratka flows through Brno."}
        job = NewJob(
            id=uuid7(),
            workflow_name=workflow_name,
            priority=fields.pop("priority", 0),
            input_json=msgspec.json.encode(request).decode(),
            **fields,
        )
        [accepted] = await intake.add_many(database, [job])
        assert isinstance(accepted, Accepted)
        if wake:
            await queue.wake([Hint(job.id, 0, job.workflow_name, job.priority, accepted.queued_at)])
        return job.id

    return commit


@pytest.fixture
def wait_for(sql: asyncpg.Connection) -> WaitFor:
    """The job's row, as soon as it is in one of the states."""

    async def poll(job_id: UUID, *states: str, within_s: float = 20.0) -> asyncpg.Record:
        states = states or ("completed", "failed", "cancelled")
        deadline = asyncio.get_running_loop().time() + within_s
        while True:
            row = await sql.fetchrow("SELECT * FROM llm_workflow_jobs WHERE id = $1", job_id)
            assert row is not None
            if row["status"] in states:
                return row
            assert asyncio.get_running_loop().time() < deadline, f"still {row['status']}, wanted {states}"
            await asyncio.sleep(0.01)

    return poll
