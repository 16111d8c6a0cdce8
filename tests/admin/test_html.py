"""How a page is put together: a list of many jobs does not keep others from their turn."""

import asyncio
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any
from uuid import UUID

from llm_service.admin.health import Health
from llm_service.admin.html import Pages
from llm_service.admin.query import PageQuery
from llm_service.admin.queue import Listed
from llm_service.admin.view import row_of

NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
JOB = dict.fromkeys(
    "action username user_id queued_at started_at completed_at lease_expires_at duration_ms error_code error_message "
    "total_tokens cost_usd".split()
) | {
    "status": "pending",
    "attempt": 0,
    "max_attempts": 3,
    "workflow_name": "completion",
    "priority": 0,
    "created_at": NOW,
    "run_after": NOW,
    "webhook_state": "none",
}


async def test_a_list_is_made_in_turns_with_others() -> None:
    pages, request = Pages(), SimpleNamespace(scope={"state": {}})
    context: dict[str, Any] = {
        "now": NOW,
        "query": PageQuery(),
        "listed": Listed(
            rows=[row_of(SimpleNamespace(id=UUID(int=number), **JOB), NOW) for number in range(200)],
            total=200,
            capped=False,
            next_cursor=None,
            is_first=True,
            chips=None,
            health=Health(line="", banner=None),
        ),
    }
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    beside = asyncio.create_task(others())
    answer = await pages.answer_in_turns(request, "_live.html", **context)  # type: ignore[arg-type]
    beside.cancel()
    assert turns > 10
    assert answer.content == pages.answer(request, "_live.html", **context).content  # type: ignore[arg-type]
