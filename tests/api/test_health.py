"""The open routes, asked by a crowd."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from llm_service.api.services import Services
from llm_service.api.shared import Shared
from llm_service.app import create_app
from llm_service.settings import Settings


@pytest.fixture
async def asked(settings: Settings) -> AsyncIterator[tuple[httpx.AsyncClient, list[str]]]:
    """A client, and the statements that health has sent to PostgreSQL."""
    app = create_app(settings)
    app.state.leaving = False
    services: Services = app.state.services
    statements: list[str] = []

    def note(_: Any, __: Any, statement: str, *___: Any) -> None:
        statements.append(statement)

    sa.event.listen(services.health_database.engine.sync_engine, "before_cursor_execute", note)
    transport = httpx.ASGITransport(app=app)  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client, statements
    await asyncio.gather(services.queue.close(), services.database.close(), services.health_database.close())


@pytest.mark.parametrize("path", ["/health", "/health/ready", "/metrics"])
async def test_s59_a_crowd_of_strangers_is_one_question(
    asked: tuple[httpx.AsyncClient, list[str]], path: str
) -> None:
    """Each with a question of its own, most would wait too long: then a service in health is taken out of use."""
    client, statements = asked
    await client.get(path)
    alone = len(statements)
    answers = await asyncio.gather(*(client.get(path) for _ in range(300)))
    assert {answer.status_code for answer in answers} == {200}
    assert len(statements) <= 4 * alone
    before = len(statements)
    await client.get(path)
    assert len(statements) == before + alone, "who comes later asks anew"


async def test_what_goes_wrong_is_told_to_all_and_not_kept() -> None:
    found: list[Any] = [OSError("gone"), "there"]
    gate = asyncio.Event()

    async def find() -> str:
        await gate.wait()
        if isinstance(what := found.pop(0), Exception):
            raise what
        return str(what)

    shared = Shared(find)
    crowd = [asyncio.create_task(shared.get()) for _ in range(5)]
    await asyncio.sleep(0)
    crowd[0].cancel()
    gate.set()
    ends = await asyncio.gather(*crowd, return_exceptions=True)
    assert [type(end) for end in ends] == [asyncio.CancelledError, *[OSError] * 4]
    assert await shared.get() == "there"
