"""The line at the foot of the list: whether jobs are worked on, asked for once for all pages."""

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest
import sqlalchemy as sa
from tests.admin.conftest import Browser

from llm_service.admin.health import KEPT_S, HealthLook
from llm_service.api.services import Services
from llm_service.app import close_services, open_services
from llm_service.settings import Settings

WORKER = "INSERT INTO llm_workers (name) VALUES ('w') ON CONFLICT (name) DO UPDATE SET seen_at = now()"


@pytest.fixture
async def services(settings: Settings) -> AsyncIterator[Services]:
    opened = open_services(settings)
    yield opened
    await close_services(opened)


async def test_it_is_asked_for_again_after_2_s(services: Services, sql: asyncpg.Connection) -> None:
    moment = 100.0
    health = HealthLook(services, lambda: moment)
    nobody = await health.look()
    assert nobody.banner is not None
    assert "no worker is up" in nobody.banner
    await sql.execute(WORKER)
    moment += KEPT_S - 0.01
    assert await health.look() == nobody
    moment += 0.01
    seen = await health.look()
    assert (seen.banner, seen.line) == (None, "1 worker up · 0 running · 0 pending · nothing waits")


async def test_many_pages_at_once_ask_once(admin: Browser) -> None:
    asked: list[str] = []

    def remember(_: object, __: object, statement: str, *___: object) -> None:
        if "llm_workers" in statement:
            asked.append(statement)

    sa.event.listen(sa.Engine, "before_cursor_execute", remember)
    try:
        views = [f"/admin/queue/rows?user=user{number}" for number in range(20)]
        answers = await asyncio.gather(*(admin.client.get(view) for view in views))
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", remember)
    assert {answer.status_code for answer in answers} == {200}
    assert all("0 pending" in answer.text for answer in answers)
    assert len(asked) <= 1
