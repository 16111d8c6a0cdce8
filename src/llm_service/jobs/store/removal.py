"""Deletes jobs with everything that hangs on them."""

from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID

import sqlalchemy as sa

from llm_service.db import Database


class Removed(NamedTuple):
    """A job that is gone, and the state it was in."""

    id: UUID
    status: str


# Locked in one order, so that two deletions of overlapping sets wait instead of colliding.
_DELETE = sa.text("""
WITH doomed AS (
    SELECT id FROM llm_workflow_jobs WHERE id = ANY(CAST(:ids AS uuid[])) ORDER BY id FOR UPDATE
)
DELETE FROM llm_workflow_jobs j USING doomed WHERE j.id = doomed.id RETURNING j.id, j.status
""")


async def delete(database: Database, job_ids: Sequence[UUID]) -> list[Removed]:
    """Delete what is there of these jobs; their attempts, calls and deliveries go with them."""
    async with database.statement() as connection:
        return [Removed(*row) for row in await connection.execute(_DELETE, {"ids": list(job_ids)})]
