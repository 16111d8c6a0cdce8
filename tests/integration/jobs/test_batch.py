"""Submits that arrive together: stored together, each answered for itself."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from uuid import UUID

import asyncpg
import msgspec
import pytest
from tests.statements import statements_sent
from uuid_utils.compat import uuid7

from llm_service.db import Database
from llm_service.errors import InvalidInputData, ServiceUnavailable, TooManyRequests
from llm_service.jobs import batch
from llm_service.jobs.batch import Batcher, Committed
from llm_service.jobs.store import intake
from llm_service.jobs.store.intake import NewJob

TOO_LARGE = '{"n": 1e200000}'
"""JSON, and yet no jsonb."""


def job(number: int = 0, input_json: str | None = None) -> NewJob:
    text = input_json or msgspec.json.encode({"number": number}).decode()
    return NewJob(id=uuid7(), workflow_name="completion", priority=0, input_json=text)


class Desk:
    """A batcher, what it told, and the inserts that it made."""

    def __init__(self, database: Database, sent: list[str]) -> None:
        self.batcher = Batcher(database, self.wake)
        self.told: list[UUID] = []
        self._sent = sent

    @property
    def inserts(self) -> int:
        return sum("INSERT INTO llm_workflow_jobs" in statement for statement in self._sent)

    async def wake(self, committed: Committed) -> None:
        self.told += [new.id for new, _ in committed]


@pytest.fixture
async def desk(database: Database) -> AsyncIterator[Desk]:
    with statements_sent(database.engine.sync_engine) as sent:
        opened = Desk(database, sent)
        yield opened
        await opened.batcher.close()


async def stored(sql: asyncpg.Connection) -> dict[UUID, str]:
    return {
        row["id"]: row["input_data"]
        for row in await sql.fetch("SELECT id, input_data FROM llm_workflow_jobs")
    }


async def test_submits_of_one_moment_are_one_statement(desk: Desk, sql: asyncpg.Connection) -> None:
    jobs = [job(number) for number in range(64)]
    answers = await asyncio.gather(*(desk.batcher.add(one) for one in jobs))
    assert desk.inserts == 1
    assert [answer.job_id for answer in answers] == [one.id for one in jobs] == desk.told
    assert (await stored(sql)).keys() == {one.id for one in jobs}
    assert {answer.queued_at for answer in answers} == {
        row["queued_at"] for row in await sql.fetch("SELECT queued_at FROM llm_workflow_jobs")
    }


async def test_what_arrives_meanwhile_goes_with_the_next(desk: Desk) -> None:
    first = asyncio.create_task(desk.batcher.add(job()))
    while not desk.inserts:
        await asyncio.sleep(0)
    later = [asyncio.create_task(desk.batcher.add(job())) for _ in range(20)]
    await asyncio.gather(first, *later)
    assert desk.inserts == 2


async def test_each_field_reaches_its_column(desk: Desk, sql: asyncpg.Connection) -> None:
    full = NewJob(
        id=uuid7(),
        workflow_name="completion",
        priority=7,
        input_json='{"a": "\\u00e9\\"{,}"}',
        user_id=uuid7(),
        username='quote " comma , brace {} \\ NULL',
        action="",
        webhook_url="https://example.com/x",
        webhook_secret="sealed",
        debug_mode=True,
        max_attempts=5,
        request_id="r",
        retried_from=None,
        delay_s=90.5,
    )
    await asyncio.gather(desk.batcher.add(full), desk.batcher.add(job()))
    row = await sql.fetchrow("SELECT * FROM llm_workflow_jobs WHERE id = $1", full.id)
    assert row is not None
    wanted = msgspec.structs.asdict(full)
    assert msgspec.json.decode(wanted.pop("input_json")) == msgspec.json.decode(row["input_data"])
    held_back = timedelta(seconds=wanted.pop("delay_s"))
    assert row["run_after"] == row["queued_at"] == row["created_at"] + held_back
    assert {name: row[name] for name in wanted} == wanted


@pytest.mark.parametrize("bad", [[0], [13], [63], [5, 6, 40]])
async def test_a_row_that_cannot_be_stored_fails_alone(
    desk: Desk, sql: asyncpg.Connection, bad: list[int]
) -> None:
    jobs = [job(number, TOO_LARGE if number in bad else None) for number in range(64)]
    answers = await asyncio.gather(*(desk.batcher.add(one) for one in jobs), return_exceptions=True)
    refused = [number for number, answer in enumerate(answers) if isinstance(answer, InvalidInputData)]
    assert refused == bad
    good = {one.id for number, one in enumerate(jobs) if number not in bad}
    assert (await stored(sql)).keys() == good == set(desk.told)


async def test_a_lost_database_is_told_to_all_of_them_and_the_next_are_stored(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_many = intake.add_many

    async def away(*_: object) -> list[object]:
        raise ServiceUnavailable

    monkeypatch.setattr(intake, "add_many", away)
    answers = await asyncio.gather(*(desk.batcher.add(job()) for _ in range(5)), return_exceptions=True)
    assert [type(answer) for answer in answers] == [ServiceUnavailable] * 5
    monkeypatch.setattr(intake, "add_many", add_many)
    await desk.batcher.add(job())


async def test_a_full_line_refuses_and_loses_nobody(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "MOST_WAITING", 10)
    answers = await asyncio.gather(*(desk.batcher.add(job()) for _ in range(25)), return_exceptions=True)
    refused = [answer for answer in answers if isinstance(answer, TooManyRequests)]
    assert len(refused) == 15
    assert refused[0].headers == {"Retry-After": "1"}
    assert len(desk.told) == 10


async def test_a_caller_that_left_the_line_leaves_no_row(desk: Desk, sql: asyncpg.Connection) -> None:
    leaves, stays = job(), job()
    gone = asyncio.create_task(desk.batcher.add(leaves))
    await asyncio.sleep(0)
    gone.cancel()
    await desk.batcher.add(stays)
    assert (await stored(sql)).keys() == {stays.id}


async def test_a_caller_that_waits_too_long_is_told_so(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hang(*_: object) -> list[object]:
        await asyncio.Event().wait()
        return []

    monkeypatch.setattr(batch, "WAIT_S", 0.05)
    monkeypatch.setattr(intake, "add_many", hang)
    desk = Desk(database, [])
    with pytest.raises(ServiceUnavailable):
        await desk.batcher.add(job())
    desk.batcher._together._under_way.cancel()  # type: ignore[union-attr]


async def test_large_submits_do_not_travel_all_at_once(desk: Desk) -> None:
    large = '{"prompt": "' + "x" * 1_000_000 + '"}'
    await asyncio.gather(*(desk.batcher.add(job(0, large)) for _ in range(12)))
    assert desk.inserts == 3


async def test_closing_waits_for_everybody_in_line(desk: Desk, sql: asyncpg.Connection) -> None:
    callers = [asyncio.create_task(desk.batcher.add(job())) for _ in range(300)]
    await asyncio.sleep(0)
    await desk.batcher.close()
    assert all(caller.done() for caller in callers) or len(await stored(sql)) == 300
    await asyncio.gather(*callers)
    assert len(await stored(sql)) == 300
