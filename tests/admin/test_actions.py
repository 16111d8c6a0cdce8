"""What the queue page can do to jobs, what it says before, what it writes down."""

import asyncio
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import httpx
import pytest
from tests.admin.conftest import FETCH, Browser

from llm_service.admin import deeds, matching

JOBS = "llm_workflow_jobs"
NOBODY = str(UUID(int=1))
ADD = f"""
INSERT INTO {JOBS} (id, workflow_name, input_data, status, username, action, cost_usd, priority, created_at, completed_at)
SELECT gen_random_uuid(), $1, '{{"prompt": "Hello."}}', $2, $3, 'generate contacts', 0.5, 7, now() - n * interval '1 second', now()
  FROM generate_series(1, $4::int) AS n RETURNING id
"""


@pytest.fixture
def add(sql: asyncpg.Connection) -> Any:
    async def insert(
        status: str, number: int = 1, user: str = "jane", workflow: str = "completion"
    ) -> list[UUID]:
        return [row["id"] for row in await sql.fetch(ADD, workflow, status, user, number)]

    return insert


async def states(sql: asyncpg.Connection) -> dict[str, int]:
    rows = await sql.fetch(f"SELECT status, count(*) AS n FROM {JOBS} GROUP BY 1")
    return {row["status"]: row["n"] for row in rows}


async def audit(sql: asyncpg.Connection) -> list[asyncpg.Record]:
    return list(await sql.fetch("SELECT * FROM llm_admin_audit ORDER BY id"))


async def preview(admin: Browser, **body: Any) -> dict[str, Any]:
    answer = await admin.post("/admin/actions/preview", body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def by_filter(
    admin: Browser, action: str, text: str, shown: dict[str, Any], **more: Any
) -> httpx.Response:
    body = {"action": action, "filter": text, "expected": shown["count"], "until": shown["until"]}
    return await admin.post("/admin/actions", body | more)


# --- a selection ------------------------------------------------------------------------------------------


async def test_s29_cancel_a_selection(admin: Browser, sql: asyncpg.Connection, add: Any) -> None:
    wanted = [*await add("pending", 2), *await add("processing"), *await add("completed"), uuid4()]
    others = await add("pending")
    ids = [str(job_id) for job_id in wanted]
    shown = await preview(admin, action="cancel", job_ids=ids)
    assert (shown["count"], shown["words"]) == (3, "Cancel 3 jobs")
    assert {job["job_id"] for job in shown["sample"]} == set(ids[:3])
    answer = await admin.post("/admin/actions", {"action": "cancel", "job_ids": ids})
    result = answer.json()
    assert (result["done"], result["skipped"], result["failed"]) == (3, 2, 0)
    assert result["message"] == "3 jobs cancelled, 2 skipped: gone or in another state."
    assert await states(sql) == {"cancelled": 3, "completed": 1, "pending": 1}
    (row,) = await audit(sql)
    assert (row["action"], row["filter"], row["job_ids"], row["matched"]) == ("cancel", None, wanted, 5)
    assert (row["done"], row["skipped"], row["failed"]) == (3, 2, 0)
    assert row["ended_at"] >= row["at"]
    assert row["request_id"] == answer.headers["x-request-id"]
    session = await sql.fetchval("SELECT left(encode(token_hash, 'hex'), 12) FROM llm_admin_sessions")
    assert row["session"] == session
    assert others[0] not in row["job_ids"]


async def test_s29_retry_a_selection(admin: Browser, sql: asyncpg.Connection, add: Any) -> None:
    failed, waiting = await add("failed"), await add("pending")
    (unknown,) = await add("failed", workflow="workflow_of_before")
    ids = [str(job_id) for job_id in [*failed, *waiting, unknown]]
    shown = await preview(admin, action="retry", job_ids=ids)
    assert (shown["count"], shown["cost_usd"]) == (2, 1.0)
    result = (await admin.post("/admin/actions", {"action": "retry", "job_ids": ids})).json()
    assert (result["done"], result["skipped"], result["failed"]) == (1, 1, 1)
    assert "workflow_name names no workflow" in result["message"]
    (job_id,) = result["job_ids"]
    new = await sql.fetchrow(f"SELECT retried_from, priority, status FROM {JOBS} WHERE id = $1", UUID(job_id))
    assert tuple(new) == (failed[0], 7, "pending"), "one by one they keep their priority"
    (row,) = await audit(sql)
    assert (row["done"], row["skipped"], row["failed"]) == (1, 1, 1)


async def test_s29_delete_a_selection(admin: Browser, sql: asyncpg.Connection, add: Any) -> None:
    ids = [str(job_id) for job_id in [*await add("failed", 2), *await add("pending"), uuid4()]]
    result = (await admin.post("/admin/actions", {"action": "delete", "job_ids": ids})).json()
    assert (result["done"], result["skipped"], sorted(result["job_ids"])) == (3, 1, sorted(ids[:3]))
    assert await states(sql) == {}
    (row,) = await audit(sql)
    assert (row["action"], row["matched"], row["done"], row["skipped"]) == ("delete", 4, 3, 1)


async def test_one_job_in_another_state_is_said_as_the_api_says_it(
    admin: Browser, sql: asyncpg.Connection, add: Any
) -> None:
    (done,) = await add("completed")
    answer = await admin.post("/admin/actions", {"action": "cancel", "job_ids": [str(done)]})
    assert (answer.status_code, answer.json()["detail"]["status"]) == (409, "completed")
    gone = await admin.post("/admin/actions", {"action": "retry", "job_ids": [str(uuid4())]})
    assert gone.status_code == 404
    assert [(row["done"], row["skipped"]) for row in await audit(sql)] == [(0, 1), (0, 1)]


async def test_an_id_given_twice_is_done_once(admin: Browser, sql: asyncpg.Connection, add: Any) -> None:
    (failed,) = await add("failed")
    result = (await admin.post("/admin/actions", {"action": "retry", "job_ids": [str(failed)] * 3})).json()
    assert result["done"] == 1
    assert await states(sql) == {"failed": 1, "pending": 1}


# --- all that match ---------------------------------------------------------------------------------------


async def test_s29_cancel_all_that_match(
    admin: Browser, sql: asyncpg.Connection, add: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In several batches; jobs of others, finished ones and later ones stay."""
    monkeypatch.setattr(matching, "BATCH", 7)
    await add("pending", 20)
    await add("processing", 3)
    await add("completed", 4)
    await add("pending", 2, user="joe")
    text = "user=jane&limit=Today"
    await sql.execute(f"UPDATE {JOBS} SET created_at = now() WHERE created_at < date_trunc('day', now())")
    shown = await preview(admin, action="cancel", filter=text)
    assert (shown["count"], shown["count_is_capped"], len(shown["sample"])) == (23, False, 5)
    assert shown["words"] == "Cancel 23 jobs: jobs of jane, since 00:00 UTC"
    await sql.execute(
        f"INSERT INTO {JOBS} (id, workflow_name, input_data, username) VALUES (gen_random_uuid(), 'w', '{{}}', 'jane')"
    )
    answer = await by_filter(admin, "cancel", text, shown)
    assert answer.json() | {"job_ids": []} == {
        "done": 23,
        "skipped": 0,
        "failed": 0,
        "message": "23 jobs cancelled.",
        "job_ids": [],
        "after": None,
    }
    assert await states(sql) == {"cancelled": 23, "completed": 4, "pending": 3}
    (row,) = await audit(sql)
    assert (row["action"], row["filter"], row["matched"], row["done"]) == ("cancel", text, 23, 23)
    assert len(row["job_ids"]) == 23


async def test_s29_retry_all_that_match_goes_to_the_end_of_the_queue(
    admin: Browser, sql: asyncpg.Connection, add: Any
) -> None:
    await add("failed", 3)
    await add("cancelled", 2)
    await add("completed", 1)
    shown = await preview(admin, action="retry", filter="")
    assert (shown["count"], shown["cost_usd"]) == (6, 3.0)
    await by_filter(admin, "retry", "", shown)
    rows = await sql.fetch(f"SELECT priority, retried_from FROM {JOBS} WHERE retried_from IS NOT NULL")
    assert len({row["retried_from"] for row in rows}) == len(rows) == 6
    assert {row["priority"] for row in rows} == {0}
    only_failed = await preview(admin, action="retry", filter="status=failed")
    assert only_failed["count"] == 3
    assert (await preview(admin, action="retry", filter="status=running"))["count"] == 0


async def test_more_matches_than_shown_are_not_touched(
    admin: Browser, sql: asyncpg.Connection, add: Any
) -> None:
    """A tenth more is let pass: jobs go on failing while one reads."""
    await add("failed", 20)
    waiting = await add("processing", 3)
    shown = await preview(admin, action="retry", filter="status=failed")
    fail = f"UPDATE {JOBS} SET status = 'failed' WHERE id = $1"
    for job_id in waiting:
        await sql.execute(fail, job_id)
    answer = await by_filter(admin, "retry", "status=failed", shown)
    detail = answer.json()["detail"]
    assert (answer.status_code, detail["error"], detail["count"]) == (409, "MatchesChanged", 23)
    assert await states(sql) == {"failed": 23}
    assert await audit(sql) == []
    await sql.execute(f"UPDATE {JOBS} SET status = 'processing' WHERE id = $1", waiting[0])
    assert (await by_filter(admin, "retry", "status=failed", shown)).json()["done"] == 22


async def test_when_time_runs_out_it_can_go_on_without_doing_any_twice(
    admin: Browser, sql: asyncpg.Connection, add: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(matching, "BATCH", 2)
    monkeypatch.setattr(deeds, "BUDGET_S", 0.0)
    await add("completed", 3)
    await add("failed", 4)
    shown = await preview(admin, action="retry", filter="")
    after: str | None = None
    done, turns = 0, 0
    while True:
        result = (await by_filter(admin, "retry", "", shown, after=after)).json()
        done, turns, after = done + result["done"], turns + 1, result["after"]
        if after is None:
            break
        assert result["message"].endswith("more may be left.")
        (row,) = await audit(sql)
        assert (row["done"], row["matched"], row["ended_at"]) == (done, 7, None), "not over yet"
        assert row["moved_at"] > row["at"]
    assert (done, turns) == (7, 5)
    retried = await sql.fetch(f"SELECT retried_from FROM {JOBS} WHERE retried_from IS NOT NULL")
    assert len({row["retried_from"] for row in retried}) == len(retried) == 7
    (row,) = await audit(sql)
    assert (row["done"], len(row["job_ids"])) == (7, 7)
    assert row["ended_at"] == row["moved_at"]


async def test_s29_a_deed_that_nothing_matches_has_its_end(
    admin: Browser, sql: asyncpg.Connection, add: Any
) -> None:
    """Also where the filter's states and those of the action have none in common."""
    await add("failed", 2)
    for action, text in (("retry", "status=running"), ("cancel", "status=failed"), ("cancel", "")):
        shown = await preview(admin, action=action, filter=text)
        assert shown["count"] == 0
        assert (await by_filter(admin, action, text, shown)).json()["done"] == 0
    rows = await audit(sql)
    assert len(rows) == 3
    assert all(row["ended_at"] is not None for row in rows)


async def test_s29_a_deed_that_nobody_went_on_with_has_no_end(
    admin: Browser, sql: asyncpg.Connection, add: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says how far it came, and when; another deed of the same words is another row."""
    monkeypatch.setattr(matching, "BATCH", 2)
    monkeypatch.setattr(deeds, "BUDGET_S", 0.0)
    await add("failed", 5)
    shown = await preview(admin, action="retry", filter="status=failed")
    result = (await by_filter(admin, "retry", "status=failed", shown)).json()
    assert (result["done"], result["message"]) == (2, "2 jobs submitted again, more may be left.")
    (row,) = await audit(sql)
    assert (row["done"], row["matched"], row["ended_at"]) == (2, 5, None)
    await by_filter(admin, "retry", "status=failed", shown)
    assert [(row["done"], row["ended_at"]) for row in await audit(sql)] == [(2, None)] * 2


@pytest.mark.parametrize(
    "change",
    [
        lambda after: after.replace(".failed", ".nonsense:failed"),
        lambda after: after.replace(".failed:", ".running:"),
        lambda after: after.partition(".")[2],
        lambda after: f"{int(after.partition('.')[0]) + 1}.{after.partition('.')[2]}",
        lambda after: f"{after.partition('.')[0]}.failed:nonsense",
        lambda _: f"{10**40}.x",
        lambda _: "",
    ],
    ids=[
        "no place",
        "a place in no part",
        "no number",
        "another number",
        "no cursor",
        "a large number",
        "empty",
    ],
)
async def test_only_a_deed_that_is_under_way_can_be_gone_on_with(
    admin: Browser, sql: asyncpg.Connection, add: Any, monkeypatch: pytest.MonkeyPatch, change: Any
) -> None:
    monkeypatch.setattr(matching, "BATCH", 2)
    monkeypatch.setattr(deeds, "BUDGET_S", 0.0)
    await add("failed", 5)
    shown = await preview(admin, action="retry", filter="status=failed")
    after = (await by_filter(admin, "retry", "status=failed", shown)).json()["after"]
    refused = await by_filter(admin, "retry", "status=failed", shown, after=change(after))
    assert (refused.status_code, refused.json()["detail"]["error"]) == (400, "InvalidCursor")
    (row,) = await audit(sql)
    assert row["done"] == 2


async def test_a_deed_is_gone_on_with_in_its_own_words_and_session_alone(
    admin: Browser, sql: asyncpg.Connection, add: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(matching, "BATCH", 2)
    monkeypatch.setattr(deeds, "BUDGET_S", 0.0)
    await add("failed", 5)
    shown = await preview(admin, action="retry", filter="status=failed")
    after = (await by_filter(admin, "retry", "status=failed", shown)).json()["after"]
    for action, text in (("redeliver", "status=failed"), ("retry", ""), ("retry", "status=failed&user=jane")):
        assert (await by_filter(admin, action, text, shown, after=after)).status_code == 400, (action, text)
    await sql.execute("UPDATE llm_admin_audit SET session = 'somebody'")
    assert (await by_filter(admin, "retry", "status=failed", shown, after=after)).status_code == 400
    (row,) = await audit(sql)
    assert row["done"] == 2


async def test_too_many_matches_are_not_begun(admin: Browser, sql: asyncpg.Connection, add: Any) -> None:
    await add("failed", 10_001)
    shown = await preview(admin, action="retry", filter="status=failed")
    assert (shown["count"], shown["count_is_capped"]) == (10_000, True)
    answer = await by_filter(admin, "retry", "status=failed", shown)
    assert (answer.status_code, answer.json()["detail"]["error"]) == (422, "TooManyMatches")
    assert await states(sql) == {"failed": 10_001}


async def test_the_moment_of_the_preview_can_not_be_put_into_the_future(
    admin: Browser, sql: asyncpg.Connection, add: Any
) -> None:
    await add("pending", 2)
    shown = await preview(admin, action="cancel", filter="")
    shown["until"] = (datetime.fromisoformat(shown["until"]) + timedelta(days=1)).isoformat()
    await sql.execute(
        f"INSERT INTO {JOBS} (id, workflow_name, input_data, created_at) "
        "VALUES (gen_random_uuid(), 'w', '{}', now() + interval '1 hour')"
    )
    assert (await by_filter(admin, "cancel", "", shown)).json()["done"] == 2


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"action": "delete", "filter": "", "expected": 1, "until": "2026-01-01T00:00:00Z"}, 422),
        (
            {"action": "cancel", "filter": "status=nonsense", "expected": 9, "until": "2026-01-01T00:00:00Z"},
            422,
        ),
        ({"action": "cancel", "filter": "usr=jane", "expected": 9, "until": "2026-01-01T00:00:00Z"}, 422),
        (
            {
                "action": "cancel",
                "filter": "user=" + "x" * 300,
                "expected": 9,
                "until": "2026-01-01T00:00:00Z",
            },
            422,
        ),
        ({"action": "cancel", "filter": "user=jane"}, 422),
        ({"action": "cancel", "filter": "", "expected": 9, "until": "2026-01-01T00:00:00"}, 422),
        ({"action": "cancel", "filter": "", "expected": -1, "until": "2026-01-01T00:00:00Z"}, 422),
        ({"action": "cancel"}, 422),
        ({"action": "cancel", "job_ids": [], "filter": None}, 422),
        ({"action": "cancel", "job_ids": [NOBODY], "filter": ""}, 422),
        ({"action": "cancel", "job_ids": ["x"]}, 422),
        ({"action": "cancel", "job_ids": [str(UUID(int=n)) for n in range(501)]}, 422),
        ({"action": "drop", "job_ids": [NOBODY]}, 422),
        ({"action": "cancel", "job_ids": [NOBODY], "more": 1}, 422),
        ([], 422),
    ],
    ids=lambda value: str(value)[:60],
)
async def test_what_is_not_meant_clearly_is_not_done(
    admin: Browser, sql: asyncpg.Connection, add: Any, body: Any, status: int
) -> None:
    """Least of all a filter of which something would be dropped: it would match more."""
    await add("pending", 2)
    answer = await admin.post("/admin/actions", body)
    assert answer.status_code == status, answer.text
    assert await states(sql) == {"pending": 2}
    assert await audit(sql) == []


# --- without script, and when things break ----------------------------------------------------------------


async def test_s29_a_form_does_one_job_and_leads_back(
    admin: Browser, sql: asyncpg.Connection, add: Any
) -> None:
    (waiting,), (failed,) = await add("pending"), await add("failed")
    token = {"csrf_token": admin.headers["X-CSRF-Token"]}

    async def send(action: str, job_id: UUID | str, **fields: str) -> httpx.Response:
        data = token | {"action": action, "job_id": str(job_id)} | fields
        return await admin.client.post("/admin/actions", data=data)

    cancelled = await send("cancel", waiting, next="/admin/queue?status=failed")
    assert (cancelled.status_code, cancelled.headers["location"]) == (303, "/admin/queue?status=failed")
    retried = await send("retry", failed)
    new = await sql.fetchval(f"SELECT id FROM {JOBS} WHERE retried_from = $1", failed)
    assert retried.headers["location"] == f"/admin/queue/{new}"
    late = await send("cancel", failed)
    assert late.headers["location"] == f"/admin/queue/{failed}", "its page shows the state it is in"
    away = await send("delete", failed, next="https://evil.example/")
    assert away.headers["location"] == "/admin/queue"
    assert (await send("drop", failed)).status_code == 422
    assert (await send("cancel", "x")).status_code == 404
    rows = await audit(sql)
    assert [(row["action"], row["done"]) for row in rows] == [
        ("cancel", 1),
        ("retry", 1),
        ("cancel", 0),
        ("delete", 1),
    ]


async def test_s29_what_breaks_off_has_its_row_all_the_same(
    admin: Browser, sql: asyncpg.Connection, add: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The row is there before the first job is touched; what never ended has no end."""
    seen = []

    async def break_off(*_: object) -> None:
        seen.extend(await audit(sql))
        raise RuntimeError("a bug")

    monkeypatch.setattr("llm_service.jobs.cancel.cancel", break_off)
    (waiting,) = await add("pending")
    answer = await admin.post("/admin/actions", {"action": "cancel", "job_ids": [str(waiting)]})
    assert answer.status_code == 500
    (row,) = await audit(sql)
    assert seen == [row]
    assert (row["action"], row["job_ids"], row["done"], row["ended_at"]) == ("cancel", [waiting], 0, None)


async def test_a_preview_writes_nothing(admin: Browser, sql: asyncpg.Connection, add: Any) -> None:
    ids = [str(job_id) for job_id in await add("pending", 2)]
    for action in ("cancel", "retry", "delete"):
        await preview(admin, action=action, job_ids=ids)
    assert await states(sql) == {"pending": 2}
    assert await audit(sql) == []


async def test_two_admins_at_once_cancel_each_job_once(
    admin: Browser, sql: asyncpg.Connection, add: Any
) -> None:
    ids = [str(job_id) for job_id in await add("pending", 12)]
    body = {"action": "delete", "job_ids": ids}
    results = await asyncio.gather(*(admin.post("/admin/actions", body) for _ in range(3)))
    assert sum(result.json()["done"] for result in results) == 12
    assert sum(row["done"] for row in await audit(sql)) == 12


async def test_the_api_secret_acts_nowhere_here(browser: httpx.AsyncClient, add: Any) -> None:
    (waiting,) = await add("pending")
    body = {"action": "cancel", "job_ids": [str(waiting)]}
    answer = await browser.post(
        "/admin/actions", json=body, headers=FETCH | {"X-API-Secret": "test-secret-0123456789"}
    )
    assert answer.status_code == 403
