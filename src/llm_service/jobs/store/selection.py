"""Which jobs an action is about: those of a list of ids, or those that match filters and are in a fitting state."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any, NamedTuple
from uuid import UUID

import msgspec
import sqlalchemy as sa

from llm_service.db import Database
from llm_service.jobs.filters import STATUS_FILTERS, JobFilters
from llm_service.jobs.model import UNFINISHED, WorkflowJob
from llm_service.jobs.store.listing import COUNT_CAP, ROW, JobRow


class Measured(NamedTuple):
    """How many jobs, COUNT_CAP + 1 where there are more, and what they cost; None where no cost is known."""

    jobs: int
    cost_usd: Decimal | None


def parts(filters: JobFilters, states: Sequence[str]) -> list[JobFilters]:
    """The filters narrowed to some states, one for each index that serves them; empty where none can match."""
    asked: Sequence[str] = STATUS_FILTERS[filters.status] or states
    wanted = [state for state in states if state in asked]
    names = ["running"] if set(wanted) == set(UNFINISHED) else wanted
    return [msgspec.structs.replace(filters, status=name) for name in names]


async def measure(database: Database, among: Sequence[JobFilters]) -> Measured:
    """Counts the jobs of all parts, looking at no more than COUNT_CAP + 1 of each."""
    if not among:
        return Measured(0, None)
    async with database.statement() as connection:
        row = (await connection.execute(measure_query(among))).one()
    return Measured(min(row[0], COUNT_CAP + 1), row[1])


def measure_query(among: Sequence[JobFilters]) -> sa.Executable:
    matches = [
        sa.select(WorkflowJob.cost_usd)
        .where(*filters.clauses())
        .order_by(*filters.order())
        .limit(COUNT_CAP + 1)
        .subquery(f"part_{number}")
        for number, filters in enumerate(among)
    ]
    every = sa.union_all(*(sa.select(part.c.cost_usd) for part in matches)).subquery("every")
    return sa.select(sa.func.count(), sa.func.sum(every.c.cost_usd)).select_from(every)


async def pick(database: Database, job_ids: Sequence[UUID]) -> list[JobRow]:
    """What is there of these jobs, as a list shows them, newest first."""
    query: sa.Select[Any] = (
        sa.select(*ROW)
        .where(WorkflowJob.id.in_(job_ids))
        .order_by(WorkflowJob.created_at.desc(), WorkflowJob.id.desc())
    )
    async with database.statement() as connection:
        return list((await connection.execute(query)).all())
