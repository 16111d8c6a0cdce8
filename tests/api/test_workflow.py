"""POST /workflow, /workflow/validate and GET /workflows."""

import asyncio
import hashlib
from typing import Any
from uuid import UUID

import asyncpg
import httpx
import pytest
from tests.conftest import AUTH
from tests.in_process import serving

from llm_service.jobs.queue import JOBS, JobQueue

SUBMISSION: dict[str, Any] = {"workflow_name": "completion", "input_data": {"prompt": "Say hello."}}


async def submit(
    client: httpx.AsyncClient, *, headers: dict[str, str] | None = None, **fields: Any
) -> httpx.Response:
    return await client.post("/api/v1/workflow", json=SUBMISSION | fields, headers=AUTH | (headers or {}))


async def test_a_submit_is_committed_and_told_to_redis(
    client: httpx.AsyncClient, sql: asyncpg.Connection, queue: JobQueue
) -> None:
    user = "6f1c6f80-7d2f-4c4c-9a1e-0d6f1c9a1b2c"
    answer = await submit(
        client, username="jane_smith", action="generate contacts", user_id=user, priority=7, debug_mode=True
    )
    assert answer.status_code == 202, answer.text
    body = answer.json()
    assert set(body) == {"job_id", "workflow_name", "status", "status_url", "queued_at"}
    assert body["status"] == "pending"
    assert answer.headers["Location"] == f"/api/v1/jobs/{body['job_id']}"
    row = await sql.fetchrow("SELECT * FROM llm_workflow_jobs WHERE id = $1", UUID(body["job_id"]))
    assert row is not None
    assert (row["username"], row["action"], str(row["user_id"]), row["priority"], row["debug_mode"]) == (
        "jane_smith",
        "generate contacts",
        user,
        7,
        True,
    )
    assert row["queued_at"] == row["created_at"]
    assert row["request_id"] == answer.headers["X-Request-ID"]
    assert await queue.client.zrange(JOBS, 0, -1) == [f"{body['job_id']}:0:completion".encode()]


@pytest.mark.parametrize(
    ("fields", "code", "place"),
    [
        ({"workflow_name": "nope"}, "UnknownWorkflow", None),
        ({"workflow_name": 3}, "ValidationError", ["body", "workflow_name"]),
        ({"input_data": {}}, "InvalidInputData", ["body", "input_data", "prompt"]),
        ({"input_data": {"prompt": 3}}, "InvalidInputData", ["body", "input_data", "prompt"]),
        ({"input_data": [1]}, "ValidationError", ["body", "input_data"]),
        ({"input_data": None}, "ValidationError", ["body", "input_data"]),
        ({"username": "x" * 256}, "ValidationError", ["body", "username"]),
        ({"action": 5}, "ValidationError", ["body", "action"]),
        ({"user_id": "not-a-uuid"}, "ValidationError", ["body", "user_id"]),
        ({"priority": 11}, "ValidationError", ["body", "priority"]),
        ({"priority": -1}, "ValidationError", ["body", "priority"]),
        ({"priority": "3"}, "ValidationError", ["body", "priority"]),
        ({"priority": True}, "ValidationError", ["body", "priority"]),
        ({"debug_mode": "yes"}, "ValidationError", ["body", "debug_mode"]),
        ({"webhook_secret": "s" * 256}, "ValidationError", ["body", "webhook_secret"]),
        ({"webhook_secret": "whsec_!!!"}, "ValidationError", ["body", "webhook_secret"]),
        ({"webhook_secret": "whsec_žž=="}, "ValidationError", ["body", "webhook_secret"]),
        ({"webhook_url": "https://e.example/" + "x" * 2048}, "ValidationError", ["body", "webhook_url"]),
        ({"webhook_url": "http://public.example/hook"}, "UnsafeWebhookURL", None),
        ({"webhook_url": "https://10.0.0.1/hook"}, "UnsafeWebhookURL", None),
        ({"webhook_url": "ftp://public.example/"}, "UnsafeWebhookURL", None),
        ({"username": "nul\x00here"}, "ValidationError", ["body", "username"]),
        (
            {"input_data": {"prompt": "a", "extra": ["b", "nul\x00"]}},
            "ValidationError",
            ["body", "input_data", "extra", 1],
        ),
    ],
)
async def test_a_wrong_field_is_422_naming_it_and_writes_nothing(
    client: httpx.AsyncClient,
    sql: asyncpg.Connection,
    fields: dict[str, Any],
    code: str,
    place: list[Any] | None,
) -> None:
    for path in ("/api/v1/workflow", "/api/v1/workflow/validate"):
        answer = await client.post(path, json=SUBMISSION | fields, headers=AUTH)
        detail = answer.json()["detail"]
        assert (answer.status_code, detail["error"]) == (422, code), answer.text
        if place is not None:
            assert detail["errors"][0]["loc"] == place
    assert await sql.fetchval("SELECT count(*) FROM llm_workflow_jobs") == 0


async def test_a_missing_field_is_named(client: httpx.AsyncClient) -> None:
    answer = await client.post("/api/v1/workflow", json={"input_data": {}}, headers=AUTH)
    assert answer.json()["detail"]["errors"] == [
        {"loc": ["body", "workflow_name"], "msg": "this field is required"}
    ]


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"\xff\xfe", b"\xef\xbb\xbf{}", b'{"a":NaN}', b"[" * 100_000, b"[" * 65 + b"]" * 65],
    ids=["empty", "cut", "not UTF-8", "BOM", "NaN", "100,000 deep", "65 deep"],
)
async def test_what_is_no_json_is_400(client: httpx.AsyncClient, body: bytes) -> None:
    answer = await client.post("/api/v1/workflow", content=body, headers=AUTH)
    assert (answer.status_code, answer.json()["detail"]["error"]) == (400, "MalformedBody")


async def test_64_levels_are_read(client: httpx.AsyncClient) -> None:
    nested = '{"prompt": "x", "deep": ' + "[" * 62 + "]" * 62 + "}"
    body = '{"workflow_name": "completion", "input_data": ' + nested + "}"
    answer = await client.post("/api/v1/workflow/validate", content=body, headers=AUTH)
    assert answer.status_code == 200, answer.text


async def test_half_a_surrogate_pair_is_422_naming_the_place(client: httpx.AsyncClient) -> None:
    body = b'{"workflow_name": "completion", "input_data": {"prompt": "\\ud800 alone"}}'
    answer = await client.post("/api/v1/workflow", content=body, headers=AUTH)
    assert answer.status_code == 422
    assert answer.json()["detail"]["errors"][0]["loc"] == ["body", "input_data", "prompt"]


async def test_a_whole_surrogate_pair_is_a_character(client: httpx.AsyncClient) -> None:
    body = b'{"workflow_name": "completion", "input_data": {"prompt": "\\ud83d\\ude00"}}'
    assert (await client.post("/api/v1/workflow", content=body, headers=AUTH)).status_code == 202


async def test_the_body_may_have_1_mib_and_no_more(client: httpx.AsyncClient) -> None:
    frame = len(b'{"workflow_name":"completion","input_data":{"prompt":"x","note":""}}')

    def body(size: int) -> bytes:
        return (
            b'{"workflow_name":"completion","input_data":{"prompt":"x","note":"'
            + b"y" * (size - frame)
            + b'"}}'
        )

    assert (await client.post("/api/v1/workflow", content=body(1024 * 1024), headers=AUTH)).status_code == 202
    for over in (1, 9 * 1024 * 1024):
        answer = await client.post("/api/v1/workflow", content=body(1024 * 1024 + over), headers=AUTH)
        assert (answer.status_code, answer.json()["detail"]["error"]) == (413, "BodyTooLarge")


async def test_another_media_type_is_415(client: httpx.AsyncClient) -> None:
    answer = await client.post(
        "/api/v1/workflow", content=b"{}", headers=AUTH | {"Content-Type": "text/plain"}
    )
    assert (answer.status_code, answer.json()["detail"]["error"]) == (415, "UnsupportedMediaType")


async def test_50_posts_with_one_key_are_one_job(client: httpx.AsyncClient, sql: asyncpg.Connection) -> None:
    answers = await asyncio.gather(
        *(submit(client, headers={"Idempotency-Key": "order-17"}) for _ in range(50))
    )
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.content for answer in answers}) == 1
    assert sum("Idempotent-Replay" not in answer.headers for answer in answers) == 1
    assert await sql.fetchval("SELECT count(*) FROM llm_workflow_jobs") == 1


async def test_a_key_with_another_body_is_refused(client: httpx.AsyncClient) -> None:
    await submit(client, headers={"Idempotency-Key": "order-17"})
    answer = await submit(client, headers={"Idempotency-Key": "order-17"}, priority=1)
    assert (answer.status_code, answer.json()["detail"]["error"]) == (422, "IdempotencyKeyReused")


async def test_validate_counts_the_calls_and_writes_nothing(
    client: httpx.AsyncClient, sql: asyncpg.Connection
) -> None:
    answer = await client.post("/api/v1/workflow/validate", json=SUBMISSION, headers=AUTH)
    assert answer.json() == {"valid": True, "workflow_name": "completion", "estimated_llm_calls": 1}
    assert await sql.fetchval("SELECT count(*) FROM llm_workflow_jobs") == 0


async def test_the_workflows_publish_their_schemas(client: httpx.AsyncClient) -> None:
    workflows = (await client.get("/api/v1/workflows", headers=AUTH)).json()["workflows"]
    assert [w["name"] for w in workflows] == [
        "completion",
        "driving_directions",
        "emergency_contacts",
        "mission_generation",
    ]
    for workflow in workflows:
        assert set(workflow) == {"name", "description", "version", "input_schema", "output_schema"}
        assert "$ref" in workflow["input_schema"] or workflow["input_schema"]["type"] == "object"


@pytest.mark.parametrize("keys", [("a", "b"), ("a", "a"), ("", "a")], ids=str)
async def test_a_key_that_is_given_twice_is_refused(
    client: httpx.AsyncClient, sql: asyncpg.Connection, keys: tuple[str, ...]
) -> None:
    """Which of them a proxy in front has looked at, nobody knows."""
    headers = [*AUTH.items(), *(("Idempotency-Key", key) for key in keys)]
    answer = await client.post("/api/v1/workflow", json=SUBMISSION, headers=headers)
    assert (answer.status_code, answer.json()["detail"]["error"]) == (422, "ValidationError")
    assert await sql.fetchval("SELECT count(*) FROM llm_workflow_jobs") == 0


async def test_s20_the_secret_of_a_webhook_is_sealed_when_a_key_is_configured(
    environment: dict[str, str], sql: asyncpg.Connection
) -> None:
    from cryptography.fernet import Fernet

    from llm_service.jobs.secrets import SecretBox
    from llm_service.settings import load_settings

    settings = load_settings(environment | {"LLM_SERVICE_ENCRYPTION_KEYS": Fernet.generate_key().decode()})
    async with serving(settings) as client:
        answer = await submit(
            client, webhook_secret="very-secret-value", webhook_url="https://hooks.example.org/x"
        )
        detail = await client.get(answer.headers["Location"], headers=AUTH)
    stored = await sql.fetchval("SELECT webhook_secret FROM llm_workflow_jobs")
    assert "very-secret-value" not in stored
    assert SecretBox(settings.encryption_keys).open(stored) == "very-secret-value"
    assert "very-secret-value" not in detail.text
    assert hashlib.sha256(stored.encode()).hexdigest() not in detail.text
