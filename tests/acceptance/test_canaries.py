"""Unique secrets planted in every place that takes one, every kind of error run, and then a search: none shows.

Real processes at LOG_LEVEL=DEBUG, so that the libraries say all they have to say. Ids: docs/security.md.
"""

import asyncio
import base64
import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
from sqlalchemy.engine import make_url
from tests.acceptance.processes import Process, bare_environment, free_port, wait_until_healthy
from tests.fakes.model_server import ModelServer, Reply
from tests.fakes.receiver import Receiver

from llm_service.jobs.queue import JobQueue

API_SECRET = "canary-api-secret-2f6b1c"
OLD_API_SECRET = "canary-old-api-secret-7e4d"
PROVIDER_KEY = "sk-canary-provider-key-91c3"
DSN_PASSWORD = "canary-dsn-password-5a0e"
REDIS_PASSWORD = "canary-redis-password-c7f2"
SERVICE_WEBHOOK_SECRET = "canary-service-webhook-secret-08bd"
JOB_WEBHOOK_SECRET = "canary-job-webhook-secret-e417"
ENCRYPTION_KEY = base64.urlsafe_b64encode(b"canary-encryption-key-0123456789"[:32]).decode()
PROMPT = "canary-prompt-d61a"
ANSWER = "canary-answer-44f8"
SECRETS = [
    API_SECRET,
    OLD_API_SECRET,
    PROVIDER_KEY,
    DSN_PASSWORD,
    REDIS_PASSWORD,
    SERVICE_WEBHOOK_SECRET,
    JOB_WEBHOOK_SECRET,
    ENCRYPTION_KEY,
]
AUTH = {"X-API-Secret": API_SECRET}


def spellings(secret: str) -> list[str]:
    raw = secret.encode()
    return [secret, base64.b64encode(raw).decode().rstrip("="), raw.hex()]


def leaks(text: str, secrets: list[str]) -> list[str]:
    return [secret for secret in secrets if any(spelling in text for spelling in spellings(secret))]


def test_the_search_finds_a_secret_in_each_spelling() -> None:
    for spelling in spellings(API_SECRET):
        assert leaks(f"at 12:00 {spelling} was seen", SECRETS) == [API_SECRET]
    assert leaks("nothing", SECRETS) == []


@pytest.fixture
def planted(environment: dict[str, str], model_server: ModelServer) -> dict[str, str]:
    with_password = make_url(environment["DATABASE_URL"]).set(password=DSN_PASSWORD)
    return bare_environment(
        **environment
        | {
            # The test server trusts everybody: it takes any password.
            "DATABASE_URL": with_password.render_as_string(hide_password=False),
            "LLM_SERVICE_API_SECRET": f"{API_SECRET},{OLD_API_SECRET}",
            "LLM_SERVICE_MODEL": "openai:test",
            "OPENAI_BASE_URL": model_server.url,
            "OPENAI_API_KEY": PROVIDER_KEY,
            "LLM_SERVICE_WEBHOOK_SECRET": SERVICE_WEBHOOK_SECRET,
            "LLM_SERVICE_ENCRYPTION_KEYS": ENCRYPTION_KEY,
            "LLM_SERVICE_CALL_TIMEOUT": "2",
            "LOG_LEVEL": "DEBUG",
        }
    )


class Service:
    def __init__(self, environment: dict[str, str], logs: Path, stack: ExitStack) -> None:
        self.environment = environment
        self.answers: list[str] = []
        self.logs = logs
        self._stack = stack

    def start(self, command: str, name: str, **changes: str) -> int:
        port = free_port()
        environment = self.environment | {"PORT": str(port)} | changes
        self._stack.enter_context(Process(["llm-service", command], environment, self.logs / f"{name}.log"))
        return port

    def output(self) -> str:
        return "".join(path.read_text(errors="replace") for path in self.logs.glob("*.log"))

    async def ask(self, port: int, method: str, path: str, **more: Any) -> httpx.Response:
        more = {"headers": AUTH} | more
        async with httpx.AsyncClient(timeout=30) as client:
            answer = await client.request(method, f"http://127.0.0.1:{port}{path}", **more)
        self.answers.append(f"{answer.status_code} {answer.headers!r} {answer.text}")
        return answer

    async def submit(self, port: int, **fields: Any) -> str:
        body = {"workflow_name": "completion", "input_data": {"prompt": PROMPT}} | fields
        answer = await self.ask(port, "POST", "/api/v1/workflow", json=body)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["job_id"])

    async def wait_for_end(self, port: int, job_id: str) -> dict[str, Any]:
        deadline = time.monotonic() + 40
        while True:
            detail: dict[str, Any] = (await self.ask(port, "GET", f"/api/v1/jobs/{job_id}")).json()
            if detail["status"] in {"completed", "failed", "cancelled"}:
                return detail
            assert time.monotonic() < deadline, detail["status"]
            await asyncio.sleep(0.05)


@pytest.fixture
def service(planted: dict[str, str], tmp_path: Path) -> Iterator[Service]:
    with ExitStack() as stack:
        yield Service(planted, tmp_path, stack)


REPLIES = [
    Reply(text=ANSWER),
    # Providers do repeat what they were sent.
    Reply(status=401, body=json.dumps({"error": {"message": f"bad key {PROVIDER_KEY}: {PROMPT}", "code": PROVIDER_KEY}}).encode()),
    Reply(status=400, body=f"<html>{PROMPT} {PROVIDER_KEY}</html>".encode()),
    Reply(status=500, body=f"{PROVIDER_KEY} {PROMPT}".encode()),
    Reply(body=b"\xff\xfe" + PROVIDER_KEY.encode()),
    Reply(body=json.dumps({"choices": PROVIDER_KEY}).encode()),
    Reply(reset=True),
    Reply(text=ANSWER, latency_s=5),
]  # fmt: skip
BAD_BODIES: list[bytes] = [
    b"{",
    b"\xff" + API_SECRET.encode(),
    json.dumps({"workflow_name": "completion", "webhook_secret": [JOB_WEBHOOK_SECRET]}).encode(),
    json.dumps(
        {"workflow_name": "completion", "input_data": {}, "webhook_secret": JOB_WEBHOOK_SECRET}
    ).encode(),
    json.dumps(
        {
            "workflow_name": "completion",
            "input_data": {"prompt": PROMPT},
            "webhook_url": "https://127.0.0.2/",
            "webhook_secret": JOB_WEBHOOK_SECRET,
        }
    ).encode(),
]


@pytest.fixture
async def hook(receiver: Receiver) -> Receiver:
    """One that refuses, and repeats in its answer what it was sent."""
    receiver.statuses = [500, 410]
    return receiver


@pytest.mark.timeout(180)
async def test_s48_no_secret_shows_anywhere_whatever_goes_wrong(  # noqa: C901 - one long story
    service: Service, model_server: ModelServer, hook: Receiver, queue: JobQueue, sql: asyncpg.Connection
) -> None:
    port = service.start("api", "api")
    service.start("worker", "worker")
    wait_until_healthy(port)
    fields = {"webhook_secret": JOB_WEBHOOK_SECRET, "webhook_url": hook.url}

    ended = []
    for number, reply in enumerate(REPLIES):
        model_server.script = [reply]
        job_id = await service.submit(port, **(fields if number % 2 == 0 else {"webhook_url": hook.url}))
        ended.append(await service.wait_for_end(port, job_id))
    assert [job["status"] for job in ended] == ["completed"] + ["failed"] * (len(REPLIES) - 1)
    assert len({job["error_code"] for job in ended}) >= 4, "different failures"
    await hook.wait_for(len(REPLIES))

    for body in BAD_BODIES:
        answer = await service.ask(port, "POST", "/api/v1/workflow", content=body)
        assert 400 <= answer.status_code < 500
    for secret in (API_SECRET + "x", OLD_API_SECRET.upper(), f"{API_SECRET},{OLD_API_SECRET}"):
        headers = {"X-API-Secret": secret, "X-Request-ID": f"{secret}!"}
        answer = await service.ask(port, "GET", "/api/v1/jobs", headers=headers)
        assert answer.status_code == 401
    for path in (
        "/api/v1/jobs",
        "/api/v1/workflows",
        "/health",
        "/metrics",
        "/schema/openapi.json",
        "/nothing",
    ):
        await service.ask(port, "GET", path)
    await service.ask(port, "GET", "/api/v1/jobs", headers={"X-API-Secret": OLD_API_SECRET})
    await service.ask(port, "POST", f"/api/v1/jobs/{ended[0]['job_id']}/retry")
    await service.ask(port, "POST", f"/api/v1/jobs/{ended[0]['job_id']}/redeliver")

    # Servers that are away, or refuse, whose addresses hold passwords.
    away = make_url("postgresql://app@127.0.0.1:1/jobs").set(password=DSN_PASSWORD)
    broken = {
        "no-postgres": {"DATABASE_URL": away.render_as_string(hide_password=False)},
        "no-redis": {"REDIS_URL": f"redis://:{REDIS_PASSWORD}@127.0.0.1:1/0"},
        "no-database": {
            "DATABASE_URL": make_url(service.environment["DATABASE_URL"])
            .set(database="nowhere")
            .render_as_string(hide_password=False)
        },
    }
    ports = {name: service.start("api", name, **changes) for name, changes in broken.items()}
    for name, changes in broken.items():
        service.start("worker", f"worker-{name}", **changes)
    for name, lame in ports.items():
        wait_until_alive(lame)
        for path in ("/health", "/metrics", "/api/v1/jobs"):
            await service.ask(lame, "GET", path)
        status = (await service.ask(lame, "POST", "/api/v1/workflow", json=SUBMISSION)).status_code
        assert status == (202 if name == "no-redis" else 503)
        await service.ask(lame, "GET", "/health")
    for changes in (
        {"LLM_SERVICE_ENCRYPTION_KEYS": ENCRYPTION_KEY[:-5]},
        {"LLM_SERVICE_PRICES": PROVIDER_KEY},
    ):
        service.start("worker", "wrong-setting", **changes)

    # The search. First that it looks at something.
    output = service.output()
    assert output.count("job ended") >= len(REPLIES)
    assert "redis away" in output
    assert "database away" in output
    assert any(PROVIDER_KEY in headers.get("Authorization", "") for headers in model_server.headers)
    assert leaks(output, [*SECRETS, PROMPT, ANSWER]) == []
    for shown in service.answers:
        assert leaks(shown, SECRETS) == [], shown
    for message in hook.received:
        assert leaks(message.body.decode() + repr(message.headers), SECRETS) == []
    assert leaks(await dump_redis(queue), [*SECRETS, PROMPT, ANSWER]) == []
    rows = [repr(dict(row)) for row in await sql.fetch("SELECT * FROM llm_workflow_jobs")]
    rows += [repr(dict(row)) for row in await sql.fetch("SELECT * FROM llm_calls")]
    rows += [repr(dict(row)) for row in await sql.fetch("SELECT * FROM llm_webhook_attempts")]
    assert len(rows) > 2 * len(REPLIES)
    assert leaks("\n".join(rows), SECRETS) == []


SUBMISSION = {
    "workflow_name": "completion",
    "input_data": {"prompt": PROMPT},
    "webhook_secret": JOB_WEBHOOK_SECRET,
}


def wait_until_alive(port: int) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            if httpx.get(f"http://127.0.0.1:{port}/health/live", timeout=2).status_code == 200:
                return
        except httpx.HTTPError:
            pass
        assert time.monotonic() < deadline, "the API did not start"
        time.sleep(0.05)


async def dump_redis(queue: JobQueue) -> str:
    """Every key of the whole server with its value, as it is stored and as it is read."""
    found = []
    async for key in queue.client.scan_iter("*"):
        found.append(key)
        found.append(await queue.client.dump(key) or b"")
        if await queue.client.type(key) == b"string":
            found.append(await queue.client.get(key) or b"")
    return b"\n".join(found).decode("latin-1")
