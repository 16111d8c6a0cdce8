"""Cancel, retry and delete, over HTTP."""

from typing import Any
from urllib.parse import quote
from uuid import UUID, uuid4

import asyncpg
import httpx
import pytest
from tests.conftest import AUTH

API = "/api/v1"


async def submitted(client: httpx.AsyncClient, **fields: Any) -> str:
    body = {"workflow_name": "completion", "input_data": {"prompt": "Say hello."}} | fields
    answer = await client.post(f"{API}/workflow", json=body, headers=AUTH)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["job_id"])


async def set_status(sql: asyncpg.Connection, job_id: str, status: str) -> None:
    await sql.execute("UPDATE llm_workflow_jobs SET status = $2 WHERE id = $1", UUID(job_id), status)


@pytest.mark.parametrize(("method", "path"), [("POST", "/jobs/{}/cancel"), ("DELETE", "/workflow/{}")])
async def test_a_pending_job_is_cancelled_at_once_and_again(
    client: httpx.AsyncClient, sql: asyncpg.Connection, method: str, path: str
) -> None:
    job_id = await submitted(client, webhook_url="https://hooks.example.org/x")
    for _ in range(2):
        answer = await client.request(method, API + path.format(job_id), headers=AUTH)
        assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")
    row = await sql.fetchrow("SELECT * FROM llm_workflow_jobs")
    assert row is not None
    assert (row["status"], row["duration_ms"], row["webhook_state"]) == ("cancelled", None, "pending")
    assert row["completed_at"] is not None
    assert await sql.fetchval("SELECT event FROM llm_webhook_deliveries") == "workflow.cancelled"


@pytest.mark.parametrize("status", ["completed", "failed"])
async def test_a_finished_job_is_not_cancelled(
    client: httpx.AsyncClient, sql: asyncpg.Connection, status: str
) -> None:
    job_id = await submitted(client)
    await set_status(sql, job_id, status)
    detail = (await client.post(f"{API}/jobs/{job_id}/cancel", headers=AUTH)).json()["detail"]
    assert (detail["error"], detail["status"]) == ("JobNotCancellable", status)


@pytest.mark.parametrize("action", ["cancel", "retry", "redeliver"])
@pytest.mark.parametrize("job_id", ["01981c5e-7b1a-7c3e-9d52-2f6a1c0b9e44", "not-an-id"])
async def test_an_unknown_job_is_404(client: httpx.AsyncClient, action: str, job_id: str) -> None:
    answer = await client.post(f"{API}/jobs/{job_id}/{action}", headers=AUTH)
    assert (answer.status_code, answer.json()["detail"]["error"]) == (404, "JobNotFound")


async def test_s42_a_job_has_one_id_and_no_other_spelling_of_it(client: httpx.AsyncClient) -> None:
    job_id = await submitted(client)
    fullwidth = job_id.translate({ord("0") + digit: 0xFF10 + digit for digit in range(10)})
    for odd in (
        "urn:uuid:" + job_id,
        f"{{{job_id}}}",
        " " + job_id,
        job_id + "\n",
        fullwidth,
        "0x" + job_id[2:],
    ):
        answer = await client.post(f"{API}/jobs/{quote(odd)}/cancel", headers=AUTH)
        assert answer.status_code == 404, odd
    assert (await client.get(f"{API}/jobs/{job_id.upper()}", headers=AUTH)).json()["status"] == "pending"


@pytest.mark.parametrize("status", ["completed", "failed", "cancelled"])
async def test_a_finished_job_is_retried_as_a_new_one(
    client: httpx.AsyncClient, sql: asyncpg.Connection, status: str
) -> None:
    fields = {"username": "jane_smith", "action": "say hello", "priority": 4, "debug_mode": True}
    earlier = await submitted(
        client,
        **fields,
        webhook_url="https://hooks.example.org/x",
        webhook_secret="hush",
        user_id=str(uuid4()),
    )
    await set_status(sql, earlier, status)
    answer = await client.post(f"{API}/jobs/{earlier}/retry", headers=AUTH)
    assert answer.status_code == 202, answer.text
    body = answer.json()
    assert body["retried_from"] == earlier
    assert body["job_id"] != earlier
    assert answer.headers["Location"] == f"{API}/jobs/{body['job_id']}"
    carried = "workflow_name, input_data, username, action, priority, debug_mode, webhook_url, webhook_secret, user_id"
    rows = await sql.fetch(f"SELECT DISTINCT {carried} FROM llm_workflow_jobs")
    assert len(rows) == 1, "the new job asks for the same"
    detail = (await client.get(f"{API}/jobs/{body['job_id']}", headers=AUTH)).json()
    assert (detail["retried_from"], detail["status"], detail["attempt"]) == (earlier, "pending", 0)


async def test_an_unfinished_job_is_not_retried(client: httpx.AsyncClient) -> None:
    detail = (await client.post(f"{API}/jobs/{await submitted(client)}/retry", headers=AUTH)).json()["detail"]
    assert (detail["error"], detail["status"]) == ("JobNotRetryable", "pending")


async def delete(client: httpx.AsyncClient, body: Any) -> httpx.Response:
    return await client.request("DELETE", f"{API}/jobs/bulk", json=body, headers=AUTH)


async def test_jobs_are_deleted_with_all_that_belongs_to_them(
    client: httpx.AsyncClient, sql: asyncpg.Connection
) -> None:
    jobs = [await submitted(client, webhook_url="https://hooks.example.org/x") for _ in range(3)]
    await client.post(f"{API}/jobs/{jobs[0]}/cancel", headers=AUTH)
    answer = await delete(client, {"job_ids": [jobs[0], jobs[1], jobs[1], str(uuid4())]})
    assert answer.status_code == 200
    body = answer.json()
    assert (body["deleted_count"], set(body["job_ids"])) == (2, set(jobs[:2]))
    assert body["message"] == "2 jobs deleted."
    assert [str(row["id"]) for row in await sql.fetch("SELECT id FROM llm_workflow_jobs")] == [jobs[2]]
    assert await sql.fetchval("SELECT count(*) FROM llm_webhook_deliveries") == 0


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"job_ids": []}, 400, "EmptyJobIdsList"),
        ({"job_ids": ["x", 3]}, 400, "InvalidJobIDs"),
        ({"job_ids": ["01981c5e-7b1a-7c3e-9d52-2f6a1c0b9e44"] * 501}, 422, "ValidationError"),
        ({"job_ids": "x"}, 422, "ValidationError"),
        ({}, 422, "ValidationError"),
    ],
)
async def test_a_wrong_list_of_ids_deletes_nothing(
    client: httpx.AsyncClient, sql: asyncpg.Connection, body: Any, status: int, code: str
) -> None:
    job_id = await submitted(client)
    if "job_ids" in body and isinstance(body["job_ids"], list) and body["job_ids"][:1] == ["x"]:
        body = {"job_ids": [*body["job_ids"], job_id]}
    answer = await delete(client, body)
    assert (answer.status_code, answer.json()["detail"]["error"]) == (status, code)
    if code == "InvalidJobIDs":
        assert answer.json()["detail"]["invalid_ids"] == ["x", "3"]
    assert await sql.fetchval("SELECT count(*) FROM llm_workflow_jobs") == 1


async def test_the_request_of_a_deleted_job_is_not_run_again(
    client: httpx.AsyncClient, sql: asyncpg.Connection
) -> None:
    headers = AUTH | {"Idempotency-Key": "order-17"}
    body = {"workflow_name": "completion", "input_data": {"prompt": "Say hello."}}
    first = await client.post(f"{API}/workflow", json=body, headers=headers)
    await delete(client, {"job_ids": [first.json()["job_id"]]})
    again = await client.post(f"{API}/workflow", json=body, headers=headers)
    assert (again.status_code, again.json()) == (202, first.json())
    assert await sql.fetchval("SELECT count(*) FROM llm_workflow_jobs") == 0


async def test_a_number_that_postgres_cannot_hold_is_422(client: httpx.AsyncClient) -> None:
    body = b'{"workflow_name": "completion", "input_data": {"prompt": "x", "n": 1e200000}}'
    answer = await client.post(f"{API}/workflow", content=body, headers=AUTH)
    assert answer.status_code == 422, answer.text
    assert answer.json()["detail"]["error"] in {"InvalidInputData", "ValidationError"}


# --- a webhook sent again ---------------------------------------------------------------------------------


async def redeliver(client: httpx.AsyncClient, job_id: str) -> httpx.Response:
    return await client.post(f"{API}/jobs/{job_id}/redeliver", headers=AUTH)


@pytest.mark.parametrize("state", ["pending", "delivered", "retrying", "exhausted", "blocked"])
async def test_a_webhook_is_sent_again_from_every_state_under_its_id(
    client: httpx.AsyncClient, sql: asyncpg.Connection, state: str
) -> None:
    job_id = await submitted(client, webhook_url="https://hooks.example.org/x")
    await client.post(f"{API}/jobs/{job_id}/cancel", headers=AUTH)
    coming = "now() + interval '1 hour'" if state == "retrying" else "NULL"
    await sql.execute(
        f"UPDATE llm_webhook_deliveries SET state = '{state}', tries = 3, next_attempt_at = {coming}"
    )
    await sql.execute(f"UPDATE llm_workflow_jobs SET webhook_state = '{state}'")
    answer = await redeliver(client, job_id)
    assert answer.status_code == 202, answer.text
    body = answer.json()
    assert (body["job_id"], body["webhook_id"]) == (job_id, f"msg_{UUID(job_id).hex}")
    assert body["webhook_state"] == "pending"
    row = await sql.fetchrow(
        "SELECT tries, tries_before, next_attempt_at <= now() AS is_due FROM llm_webhook_deliveries"
    )
    assert row is not None
    assert tuple(row) == (3, 3, True), "the tries go on counting, the schedule begins afresh"
    detail = (await client.get(f"{API}/jobs/{job_id}", headers=AUTH)).json()
    assert (detail["webhook_state"], detail["webhook"]["state"]) == ("pending", "pending")
    listed = (await client.get(f"{API}/jobs", headers=AUTH)).json()["jobs"]
    assert [job["webhook_state"] for job in listed] == ["pending"]


async def test_the_webhook_of_an_unfinished_job_is_not_sent_again(
    client: httpx.AsyncClient, sql: asyncpg.Connection
) -> None:
    job_id = await submitted(client, webhook_url="https://hooks.example.org/x")
    answer = await redeliver(client, job_id)
    detail = answer.json()["detail"]
    assert (answer.status_code, detail["error"], detail["status"]) == (
        409,
        "WebhookNotRedeliverable",
        "pending",
    )
    assert await sql.fetchval("SELECT count(*) FROM llm_webhook_deliveries") == 0


@pytest.mark.parametrize("status", ["pending", "completed"])
async def test_a_job_without_a_webhook_has_none_to_send(
    client: httpx.AsyncClient, sql: asyncpg.Connection, status: str
) -> None:
    job_id = await submitted(client)
    await set_status(sql, job_id, status)
    answer = await redeliver(client, job_id)
    assert (answer.status_code, answer.json()["detail"]["error"]) == (409, "WebhookNotRedeliverable")
    assert "webhook_url" in answer.json()["detail"]["message"]
