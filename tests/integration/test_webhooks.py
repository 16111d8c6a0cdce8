"""Webhooks from the end of a job to the receiver: body, signatures, tries, and addresses that are refused."""

import asyncio
import json
from datetime import UTC, datetime
from typing import Any

import asyncpg
import msgspec
import pytest
from standardwebhooks import Webhook
from tests.fakes.receiver import Receiver
from tests.integration.conftest import Submit, WaitFor
from tests.integration.jobs.worker_in_process import working

from llm_service.db import Database
from llm_service.jobs.queue import JobQueue
from llm_service.jobs.store import deliveries
from llm_service.settings import Settings, load_settings

SERVICE_SECRET = "the-service-wide-secret"


@pytest.fixture
def settings(environment: dict[str, str]) -> Settings:
    return load_settings(environment | {"LLM_SERVICE_WEBHOOK_SECRET": SERVICE_SECRET})


async def state_of(sql: asyncpg.Connection, job_id: Any, *wanted: str) -> str:
    async with asyncio.timeout(15):
        while True:
            state = await sql.fetchval("SELECT webhook_state FROM llm_workflow_jobs WHERE id = $1", job_id)
            if state in wanted:
                return str(state)
            await asyncio.sleep(0.01)


async def make_due(sql: asyncpg.Connection, database: Database, queue: JobQueue) -> None:
    """The clock of the schedule, compressed: what is due later is due now, and Redis is told so as by the sweep."""
    await sql.execute(
        "UPDATE llm_webhook_deliveries SET next_attempt_at = now(), hinted_at = NULL WHERE next_attempt_at IS NOT NULL"
    )
    await queue.wake_webhooks(await deliveries.due(database, unseen_s=0.0))


async def test_the_end_of_a_job_is_told_with_both_signatures(
    submit: Submit, settings: Settings, receiver: Receiver, sql: asyncpg.Connection
) -> None:
    async with working(settings):
        job_id = await submit(
            webhook_url=receiver.url, webhook_secret="the-jobs-own", username="jane_smith", action="say hello"
        )
        message = (await receiver.wait_for(1))[0]
        await state_of(sql, job_id, "delivered")
    Webhook(b"the-jobs-own").verify(message.body.decode(), message.headers)
    body = message.json()
    assert list(body)[:15] == [
        *(
            "event",
            "job_id",
            "workflow_name",
            "status",
            "user_id",
            "username",
            "action",
            "result",
            "error_message",
        ),
        *("error_code", "created_at", "started_at", "completed_at", "duration_ms", "usage"),
    ]
    assert (body["event"], body["job_id"], body["username"]) == (
        "workflow.completed",
        str(job_id),
        "jane_smith",
    )
    assert "Svratka" in body["result"]["text"]
    assert body["usage"]["calls"] == 1
    assert message.headers["Content-Type"] == "application/json"
    tries = await sql.fetch("SELECT number, status_code, response, error FROM llm_webhook_attempts")
    assert [tuple(row) for row in tries] == [(1, 200, "thanks", None)]


async def test_node_verifies_the_existing_signature(
    submit: Submit, settings: Settings, receiver: Receiver, tmp_path: Any
) -> None:
    import shutil
    import subprocess

    if (node := shutil.which("node")) is None:
        pytest.skip("Node.js is not installed: the existing receiver's check was not run")
    async with working(settings):
        await submit(webhook_url=receiver.url)
        message = (await receiver.wait_for(1))[0]
    (tmp_path / "body").write_bytes(message.body)
    check = """
      const crypto = require("crypto"), body = require("fs").readFileSync(process.argv[1]);
      const expected = "sha256=" + crypto.createHmac("sha256", process.argv[2]).update(body).digest("hex");
      process.exit(crypto.timingSafeEqual(Buffer.from(expected), Buffer.from(process.argv[3])) ? 0 : 1);
    """
    for signature, code in [(message.headers["X-Webhook-Signature"], 0), ("sha256=" + "0" * 64, 1)]:
        ran = subprocess.run(
            [node, "-e", check, str(tmp_path / "body"), SERVICE_SECRET, signature],
            check=False,
            capture_output=True,
        )
        assert ran.returncode == code, ran.stderr


async def test_a_failed_job_is_told_too(
    submit: Submit, settings: Settings, receiver: Receiver, sql: asyncpg.Connection
) -> None:
    async with working(msgspec.structs.replace(settings, job_timeout=0.000_001)):
        await submit(webhook_url=receiver.url)
        body = (await receiver.wait_for(1))[0].json()
    assert (body["event"], body["status"], body["error_code"]) == ("workflow.failed", "failed", "JobTimeout")
    assert body["result"] is None
    assert body["error_message"]


async def test_a_receiver_that_is_down_gets_it_later_under_one_id(
    submit: Submit,
    wait_for: WaitFor,
    settings: Settings,
    receiver: Receiver,
    sql: asyncpg.Connection,
    database: Database,
    queue: JobQueue,
) -> None:
    receiver.statuses = [500, 503, 302, 429, 200]
    receiver.answer_headers = {"Location": "http://127.0.0.1:1/", "Retry-After": "7"}
    async with working(settings):
        job_id = await submit(webhook_url=receiver.url)
        for tries in range(1, 5):
            await receiver.wait_for(tries)
            await state_of(sql, job_id, "retrying")
            async with asyncio.timeout(10):
                while await sql.fetchval("SELECT count(*) FROM llm_webhook_attempts") < tries:
                    await asyncio.sleep(0.01)
            due_in = await sql.fetchval("SELECT next_attempt_at - now() FROM llm_webhook_deliveries")
            assert due_in.total_seconds() > (4 if tries == 1 else 10)
            await make_due(sql, database, queue)
        await receiver.wait_for(5)
        await state_of(sql, job_id, "delivered")
        assert (await wait_for(job_id))["claims"] == 1, "a failing receiver never runs the model again"
    assert len({message.headers["webhook-id"] for message in receiver.received}) == 1
    assert len({message.body for message in receiver.received}) == 1
    statuses = await sql.fetch("SELECT status_code FROM llm_webhook_attempts ORDER BY number")
    assert [row["status_code"] for row in statuses] == [500, 503, 302, 429, 200]


async def test_410_ends_it(
    submit: Submit, settings: Settings, receiver: Receiver, sql: asyncpg.Connection
) -> None:
    receiver.statuses = [410]
    async with working(settings):
        assert await state_of(sql, await submit(webhook_url=receiver.url), "exhausted") == "exhausted"
    assert await sql.fetchval("SELECT next_attempt_at FROM llm_webhook_deliveries") is None


async def test_loopback_is_refused_without_an_exception_of_the_operator(
    submit: Submit, settings: Settings, receiver: Receiver, sql: asyncpg.Connection
) -> None:
    """The row is there already, as if the name had pointed elsewhere at submit."""
    closed = msgspec.structs.replace(settings, webhook_allowed_hosts=())
    async with working(closed):
        for url in (receiver.url, receiver.url.replace("127.0.0.1", "localhost")):
            assert await state_of(sql, await submit(webhook_url=url), "blocked", "delivered") == "blocked"
    assert receiver.received == []
    errors = await sql.fetch("SELECT DISTINCT error, status_code FROM llm_webhook_attempts")
    assert [tuple(row) for row in errors] == [("address not allowed", None)]


async def test_a_result_over_1_mb_is_left_out_and_pointed_to(
    submit: Submit, settings: Settings, receiver: Receiver, sql: asyncpg.Connection, wait_for: WaitFor
) -> None:
    job_id = await submit(webhook_url=receiver.url, wake=False)
    result = json.dumps({"text": "x" * 1_000_000})
    await sql.execute(
        "UPDATE llm_workflow_jobs SET status = 'completed', result = $1, completed_at = now()", result
    )
    await sql.execute(
        "INSERT INTO llm_webhook_deliveries (job_id, webhook_id, event, next_attempt_at) VALUES ($1, 'msg_1', 'workflow.completed', now())",
        job_id,
    )
    async with working(settings):
        message = (await receiver.wait_for(1))[0]
    body = message.json()
    assert (body["result"], body["result_truncated"]) == (None, True)
    assert body["result_url"] == f"/api/v1/jobs/{job_id}"
    assert len(message.body) < 2000
    signed_at = int(message.headers["webhook-timestamp"])
    assert abs(datetime.now(UTC).timestamp() - signed_at) < 60


async def test_a_secret_that_cannot_sign_uses_up_its_tries_and_sends_nothing(
    submit: Submit, settings: Settings, receiver: Receiver, sql: asyncpg.Connection
) -> None:
    """A row from before secrets were checked at submit, or sealed with a key that is gone."""
    async with working(settings):
        for secret in ("whsec_!!!", "fernet:gAAAAAB"):
            job_id = await submit(webhook_url=receiver.url, webhook_secret=secret)
            assert await state_of(sql, job_id, "retrying", "exhausted") == "retrying"
    errors = await sql.fetch("SELECT DISTINCT error FROM llm_webhook_attempts")
    assert [row["error"] for row in errors] == ["the message could not be signed"]
    assert receiver.received == []
