"""Deliveries from the row that ends a job: tries, ids and times, lost hints, and hosts that hang beside others."""

import asyncio
import json
import random
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import msgspec
import pytest
from standardwebhooks import Webhook, WebhookVerificationError
from tests.fakes.raw_server import OK, RawServer, hang, read_request
from tests.fakes.receiver import Receiver
from tests.integration.conftest import Submit
from tests.integration.jobs.worker_in_process import working

from llm_service.db import Database
from llm_service.jobs.queue import WEBHOOKS, JobQueue
from llm_service.jobs.redeliver import redeliver
from llm_service.jobs.report import MAX_BODY, Reporter
from llm_service.jobs.secrets import SecretBox
from llm_service.jobs.store import deliveries, endings
from llm_service.settings import Secret, Settings
from llm_service.webhooks.post import open_session

NEW, OLD = "the-new-service-secret", "the-old-service-secret"
Ended = Callable[..., Awaitable[UUID]]


@pytest.fixture
def ended(submit: Submit, sql: asyncpg.Connection, database: Database) -> Ended:
    """A job that has ended with this result; its delivery is due and nobody was told of it."""

    async def end(
        url: str, result: str | None = None, *, error_message: str | None = None, **fields: Any
    ) -> UUID:
        job_id = await submit(webhook_url=url, wake=False, **fields)
        await endings.cancel(database, job_id)
        await sql.execute(
            "UPDATE llm_workflow_jobs SET result = $2, error_message = $3 WHERE id = $1",
            job_id,
            result,
            error_message,
        )
        return job_id

    return end


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = datetime.now(UTC)

    def __call__(self) -> datetime:
        return self.now


@asynccontextmanager
async def reporting(
    database: Database, queue: JobQueue, clock: Clock | None = None, *, secrets: tuple[str, ...] = (NEW, OLD)
) -> AsyncIterator[Reporter]:
    async with open_session(("127.0.0.1", "localhost")) as session:
        yield Reporter(
            database=database,
            queue=queue,
            session=session,
            secrets=SecretBox(()),
            service_secrets=[Secret(secret) for secret in secrets],
            slots=16,
            chance=random.Random(1),
            **({"now": clock} if clock else {}),
        )


async def pass_time(sql: asyncpg.Connection, clock: Clock | None = None) -> float:
    """The schedule's clock, compressed: the time of the next try is now. Returns how many seconds that took."""
    row = await sql.fetchrow("SELECT next_attempt_at - now() AS left FROM llm_webhook_deliveries")
    assert row is not None
    assert row["left"] is not None, "no try is to come"
    await sql.execute("UPDATE llm_webhook_deliveries SET next_attempt_at = now()")
    seconds = float(row["left"].total_seconds())
    if clock is not None:
        clock.now += timedelta(seconds=seconds)
    return seconds


async def delivery(sql: asyncpg.Connection) -> asyncpg.Record:
    row = await sql.fetchrow(
        "SELECT d.*, j.webhook_state FROM llm_webhook_deliveries d JOIN llm_workflow_jobs j ON j.id = d.job_id"
    )
    assert row is not None
    assert row["state"] == row["webhook_state"]
    return row


async def tries(sql: asyncpg.Connection) -> list[asyncpg.Record]:
    return list(await sql.fetch("SELECT * FROM llm_webhook_attempts ORDER BY number"))


# --- tries ------------------------------------------------------------------------------------------------


async def test_a_receiver_that_refuses_four_tries_gets_the_fifth_under_the_same_id(
    ended: Ended, database: Database, queue: JobQueue, sql: asyncpg.Connection
) -> None:
    """F24. Nobody listens on the port, and then somebody does."""
    clock, waits = Clock(), []
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))  # bound and not listening: every connection is refused
        port = reserved.getsockname()[1]
        job_id = await ended(f"http://127.0.0.1:{port}/hook", username="jane_smith")
        async with reporting(database, queue, clock) as reporter:
            times = []
            for _ in range(4):
                times.append(clock.now)
                await reporter.deliver(job_id)
                assert (await delivery(sql))["state"] == "retrying"
                await reporter.deliver(job_id)  # not due: nothing happens
                waits.append(await pass_time(sql, clock))
            accepted = []

            async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                accepted.append(await read_request(reader))
                writer.write(OK)
                await writer.drain()
                writer.close()

            server = await asyncio.start_server(accept, sock=reserved)
            times.append(clock.now)
            await reporter.deliver(job_id)
            server.close()
    rows = await tries(sql)
    assert [(r["number"], r["status_code"], r["error"]) for r in rows] == [
        *((n, None, "the connection failed (ClientConnectorError)") for n in (1, 2, 3, 4)),
        (5, 200, None),
    ]
    assert [wait >= least - 1 for wait, least in zip(waits, (5, 15, 45, 300), strict=True)] == [True] * 4
    last = await delivery(sql)
    assert (last["state"], last["tries"], last["next_attempt_at"]) == ("delivered", 5, None)
    assert last["webhook_id"] == f"msg_{job_id.hex}"
    (head, body) = accepted[0]
    assert f"webhook-id: msg_{job_id.hex}".encode() in head
    assert f"webhook-timestamp: {int(times[-1].timestamp())}".encode() in head
    assert json.loads(body)["username"] == "jane_smith"


async def test_s17_each_try_is_signed_anew_under_one_id(
    ended: Ended, database: Database, queue: JobQueue, sql: asyncpg.Connection, receiver: Receiver
) -> None:
    receiver.statuses = [500, 503, 302, 404, 204]
    clock = Clock()
    job_id = await ended(receiver.url)
    async with reporting(database, queue, clock) as reporter:
        for turn in range(5):
            if turn:
                await pass_time(sql, clock)
            await reporter.deliver(job_id)
    sent = [message.headers for message in receiver.received]
    assert len({headers["webhook-id"] for headers in sent}) == 1
    assert len({headers["webhook-timestamp"] for headers in sent}) == 5
    assert len({headers["webhook-signature"] for headers in sent}) == 5
    assert len({message.body for message in receiver.received}) == 1
    assert [r["status_code"] for r in await tries(sql)] == [500, 503, 302, 404, 204]


async def test_after_nine_tries_it_is_exhausted(
    ended: Ended, database: Database, queue: JobQueue, sql: asyncpg.Connection, receiver: Receiver
) -> None:
    receiver.statuses = [500]
    job_id = await ended(receiver.url)
    async with reporting(database, queue) as reporter:
        for turn in range(9):
            if turn:
                await pass_time(sql)
            await reporter.deliver(job_id)
    last = await delivery(sql)
    assert (last["state"], last["tries"], last["next_attempt_at"]) == ("exhausted", 9, None)


@pytest.mark.parametrize(("status", "state"), [(410, "exhausted"), (404, "retrying"), (429, "retrying"), (204, "delivered")])  # fmt: skip
async def test_the_status_decides_what_comes_next(
    ended: Ended, database: Database, queue: JobQueue, sql: asyncpg.Connection, receiver: Receiver, status: int, state: str
) -> None:  # fmt: skip
    receiver.statuses = [status]
    receiver.answer_headers = {"Retry-After": "86400"}
    job_id = await ended(receiver.url)
    async with reporting(database, queue) as reporter:
        await reporter.deliver(job_id)
    row = await delivery(sql)
    assert row["state"] == state
    if state == "retrying":
        assert 3500 < await pass_time(sql) <= 3600, "Retry-After, capped at an hour"
    else:
        assert row["next_attempt_at"] is None


async def test_s18_both_secrets_verify_while_they_are_changed(
    ended: Ended, database: Database, queue: JobQueue, receiver: Receiver
) -> None:
    job_id = await ended(receiver.url)
    async with reporting(database, queue) as reporter:
        await reporter.deliver(job_id)
        message = receiver.received[0]
        for secret in (NEW, OLD):
            Webhook(secret.encode()).verify(message.body.decode(), message.headers)
        with pytest.raises(WebhookVerificationError):
            Webhook(b"neither of them").verify(message.body.decode(), message.headers)
        assert len(message.headers["webhook-signature"].split()) == 2


async def test_s18_a_job_with_a_secret_of_its_own_has_that_alone(
    ended: Ended, database: Database, queue: JobQueue, receiver: Receiver
) -> None:
    job_id = await ended(receiver.url, webhook_secret="its, own")
    async with reporting(database, queue) as reporter:
        await reporter.deliver(job_id)
    headers = receiver.received[0].headers
    assert len(headers["webhook-signature"].split()) == 1
    Webhook(b"its, own").verify(receiver.received[0].body.decode(), headers)


# --- bodies -----------------------------------------------------------------------------------------------


async def body_of(
    ended: Ended, database: Database, queue: JobQueue, receiver: Receiver, result: str | None, **fields: Any
) -> bytes:
    job_id = await ended(receiver.url, result, **fields)
    async with reporting(database, queue) as reporter:
        await reporter.deliver(job_id)
    return receiver.received[-1].body


async def test_a_body_of_exactly_1_mb_is_whole_and_one_byte_more_is_not(
    ended: Ended, database: Database, queue: JobQueue, receiver: Receiver, sql: asyncpg.Connection
) -> None:
    async def sized(letters: int) -> bytes:
        # A name of many bytes for each character is part of the sum.
        return await body_of(
            ended, database, queue, receiver, json.dumps({"text": "x" * letters}), username="😀" * 255
        )

    # The times in the body have up to six digits after the point: without them every body is as long.
    await sql.execute(
        "CREATE FUNCTION whole() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.created_at = '2026-01-31T09:00:00Z';"
        " NEW.completed_at = '2026-01-31T09:00:00Z'; RETURN NEW; END $$"
    )
    await sql.execute(
        "CREATE TRIGGER whole BEFORE INSERT OR UPDATE ON llm_workflow_jobs FOR EACH ROW EXECUTE FUNCTION whole()"
    )
    try:
        rest = len(await sized(0))
        border = await sized(MAX_BODY - rest)
        beyond = await sized(MAX_BODY - rest + 1)
    finally:
        await sql.execute("DROP TRIGGER whole ON llm_workflow_jobs; DROP FUNCTION whole()")
    assert len(border) == MAX_BODY
    assert json.loads(border)["result"] == {"text": "x" * (MAX_BODY - rest)}
    assert "result_truncated" not in json.loads(border)
    cut = json.loads(beyond)
    assert (cut["result"], cut["result_truncated"]) == (None, True)
    assert cut["result_url"] == f"/api/v1/jobs/{cut['job_id']}"
    assert len(beyond) < 10_000


async def test_no_body_is_over_1_mb_whatever_else_is_large(
    ended: Ended, database: Database, queue: JobQueue, receiver: Receiver
) -> None:
    body = await body_of(
        ended,
        database,
        queue,
        receiver,
        json.dumps({"text": "x" * 3_000_000}),
        error_message="\x01é" * 700_000,
        username="\x01" * 255,
    )
    assert len(body) < MAX_BODY
    told = json.loads(body)
    assert told["result_truncated"] is True
    assert told["error_message"].startswith("\x01é\x01é")
    assert told["error_message"].endswith("...")


async def test_a_long_error_alone_is_cut_and_no_result_is_said_to_be_missing(
    ended: Ended, database: Database, queue: JobQueue, receiver: Receiver
) -> None:
    body = await body_of(ended, database, queue, receiver, None, error_message="e" * 2_000_000)
    assert len(body) < MAX_BODY
    assert "result_truncated" not in json.loads(body)


async def test_s16_node_checks_the_bytes_of_a_large_body_as_the_existing_receiver_does(
    ended: Ended, database: Database, queue: JobQueue, receiver: Receiver, tmp_path: Path
) -> None:
    if (node := shutil.which("node")) is None:
        pytest.skip("Node.js is not installed: the existing receiver's check was not run")
    body = await body_of(ended, database, queue, receiver, json.dumps({"ž": "é😀\u2028" * 100_000}))
    assert len(body) > 800_000
    (tmp_path / "body").write_bytes(body)
    check = """
      const crypto = require("crypto"), body = require("fs").readFileSync(process.argv[1]);
      const expected = "sha256=" + crypto.createHmac("sha256", process.argv[2]).update(body).digest("hex");
      process.exit(crypto.timingSafeEqual(Buffer.from(expected), Buffer.from(process.argv[3])) ? 0 : 1);
    """
    signature = receiver.received[-1].headers["X-Webhook-Signature"]
    for secret, code in ((NEW, 0), (OLD, 1)):
        ran = subprocess.run(
            [node, "-e", check, str(tmp_path / "body"), secret, signature], check=False, capture_output=True
        )
        assert ran.returncode == code, ran.stderr


# --- hints are lost ---------------------------------------------------------------------------------------


async def test_what_redis_forgets_between_two_tries_is_told_again(
    submit: Submit, settings: Settings, receiver: Receiver, sql: asyncpg.Connection, queue: JobQueue
) -> None:
    """Redis is emptied; the worker's own reconciler finds what is due in PostgreSQL."""
    receiver.statuses = [500, 200]
    async with working(settings) as process:
        job_id = await submit(webhook_url=receiver.url)
        await receiver.wait_for(1)
        async with asyncio.timeout(20):
            while (await delivery(sql))["state"] != "retrying":
                await asyncio.sleep(0.01)
            while not await queue.client.zcard(WEBHOOKS):
                await asyncio.sleep(0.01)
        await queue.client.flushdb()
        # Time passes: the try was due, and Redis was told of it, longer ago than the reconciler waits.
        await sql.execute(
            "UPDATE llm_webhook_deliveries SET next_attempt_at = now() - interval '1 minute', hinted_at = now() - interval '1 minute'"
        )
        await receiver.wait_for(2)
        async with asyncio.timeout(20):
            while (await delivery(sql))["state"] != "delivered":
                await asyncio.sleep(0.01)
        assert process.runtime.heartbeat.is_steady
    assert [r["status_code"] for r in await tries(sql)] == [500, 200]
    assert {m.headers["webhook-id"] for m in receiver.received} == {f"msg_{job_id.hex}"}


# --- hosts that hang --------------------------------------------------------------------------------------


@pytest.mark.parametrize("hanging", [40])
async def test_one_host_that_hangs_holds_four_slots_and_delays_nobody_else(
    submit: Submit, settings: Settings, receiver: Receiver, sql: asyncpg.Connection, hanging: int
) -> None:
    """F25. The worker has eight slots; forty deliveries go to a host that hangs, one to a host that answers."""
    release = asyncio.Event()

    async def hang_until_released(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        await release.wait()
        writer.write(OK)
        await writer.drain()

    healthy = receiver.url.replace("127.0.0.1", "localhost")
    async with (
        RawServer(hang_until_released) as server,
        working(msgspec.structs.replace(settings, webhook_concurrency=8)),
    ):
        for _ in range(hanging):
            await submit(webhook_url=server.url)
        await server.wait_until(lambda s: s.open == 4)
        last = await submit(webhook_url=healthy)
        await receiver.wait_for(1)
        assert json.loads(receiver.received[0].body)["job_id"] == str(last)
        assert (server.open, server.most_open, release.is_set()) == (4, 4, False), "they hang still"
        assert await sql.fetchval("SELECT count(*) FROM llm_webhook_attempts WHERE job_id <> $1", last) == 0
        release.set()
        async with asyncio.timeout(30):
            while await sql.fetchval(
                "SELECT count(*) FROM llm_workflow_jobs WHERE webhook_state <> 'delivered'"
            ):
                await asyncio.sleep(0.01)
    assert server.most_open == 4
    assert server.connections == hanging
    numbers = await sql.fetch("SELECT number FROM llm_webhook_attempts WHERE job_id <> $1", last)
    assert [row["number"] for row in numbers] == [1] * hanging, "to wait for a turn is no try"


async def test_a_delivery_that_waits_in_a_worker_that_dies_is_told_to_another(
    ended: Ended, database: Database, queue: JobQueue, sql: asyncpg.Connection
) -> None:
    async with RawServer(hang) as server, reporting(database, queue) as reporter:
        jobs = [await ended(server.url) for _ in range(5)]
        at_work = [asyncio.create_task(reporter.deliver(job_id)) for job_id in jobs[:4]]
        await server.wait_until(lambda s: s.open == 4)
        await reporter.deliver(jobs[4])
        await sql.execute("UPDATE llm_webhook_deliveries SET next_attempt_at = now() - interval '1 minute'")
        assert await deliveries.due(database, unseen_s=10) == [], "nobody need be told while it waits here"
        await sql.execute("UPDATE llm_webhook_deliveries SET hinted_at = hinted_at - interval '71 seconds'")
        found = await deliveries.due(database, unseen_s=10)
        assert [hint.job_id for hint in found] == [jobs[4]]
        for task in at_work:
            task.cancel()
        await asyncio.gather(*at_work, return_exceptions=True)


# --- sent again -------------------------------------------------------------------------------------------


async def test_a_delivery_sent_again_has_a_fresh_schedule_and_goes_on_counting(
    ended: Ended, database: Database, queue: JobQueue, sql: asyncpg.Connection, receiver: Receiver
) -> None:
    receiver.statuses = [410, 500, 200]
    job_id = await ended(receiver.url)
    async with reporting(database, queue) as reporter:
        await reporter.deliver(job_id)
        await sql.execute("UPDATE llm_webhook_deliveries SET tries = 9")
        await sql.execute("UPDATE llm_webhook_attempts SET number = 9")
        assert (await delivery(sql))["state"] == "exhausted"
        accepted = await redeliver(database, queue, job_id)
        assert (accepted.state, accepted.webhook_id) == ("pending", f"msg_{job_id.hex}")
        assert await queue.client.zscore(WEBHOOKS, f"webhook:{job_id}:9") is not None, "Redis was told"
        assert (await delivery(sql))["state"] == "pending"
        await reporter.deliver(job_id)
        assert (await delivery(sql))["state"] == "retrying", "the first of nine again"
        assert 5 <= await pass_time(sql) <= 6.1
        await reporter.deliver(job_id)
    assert (await delivery(sql))["state"] == "delivered"
    assert [r["number"] for r in await tries(sql)] == [9, 10, 11]
    assert len({m.headers["webhook-id"] for m in receiver.received}) == 1


async def test_what_is_being_tried_is_not_sent_beside_it(
    ended: Ended, database: Database, queue: JobQueue, sql: asyncpg.Connection
) -> None:
    release = asyncio.Event()

    async def answer_later(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        await release.wait()
        writer.write(OK)
        await writer.drain()

    async with RawServer(answer_later) as server, reporting(database, queue) as reporter:
        job_id = await ended(server.url)
        first = asyncio.create_task(reporter.deliver(job_id))
        await server.wait_until(lambda s: s.open == 1)
        assert (await redeliver(database, queue, job_id)).state == "pending"
        await reporter.deliver(job_id)
        release.set()
        await first
        await reporter.deliver(job_id)
        assert server.connections == 1
    assert (await delivery(sql))["state"] == "delivered"


async def test_a_job_from_before_there_were_deliveries_can_be_sent_again(
    ended: Ended, database: Database, queue: JobQueue, sql: asyncpg.Connection, receiver: Receiver
) -> None:
    job_id = await ended(receiver.url)
    await sql.execute("DELETE FROM llm_webhook_deliveries")
    await sql.execute("UPDATE llm_workflow_jobs SET webhook_state = 'none'")
    await redeliver(database, queue, job_id)
    async with reporting(database, queue) as reporter:
        await reporter.deliver(job_id)
    assert (await delivery(sql))["state"] == "delivered"
    assert receiver.received[0].json()["event"] == "workflow.cancelled"
