"""Worker processes as an operator starts and stops them: our command, and arq's own."""

import asyncio
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
from tests.acceptance.processes import Process, free_port, wait_until_healthy
from tests.conftest import AUTH
from tests.fakes.model_server import ModelServer, Reply

pytestmark = pytest.mark.timeout(120)


class Service:
    """An API process, and workers as a test starts them."""

    def __init__(self, environment: dict[str, str], logs: Path) -> None:
        self.port = free_port()
        self.environment = environment | {
            "PATH": "/usr/bin:/bin",
            "PORT": str(self.port),
        }
        self.logs = logs
        self.base = f"http://127.0.0.1:{self.port}/api/v1"
        self.api = Process(["llm-service", "api"], self.environment, logs / "api.log")

    def worker(self, name: str = "worker", **extra: str) -> Process:
        return Process(["llm-service", "worker"], self.environment | extra, self.logs / f"{name}.log")

    async def submit(self, **fields: Any) -> str:
        body = {"workflow_name": "completion", "input_data": {"prompt": "Brno lies on the Svratka."}} | fields
        async with httpx.AsyncClient() as client:
            answer = await client.post(f"{self.base}/workflow", json=body, headers=AUTH)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["job_id"])

    async def job(self, job_id: str) -> dict[str, Any]:
        async with httpx.AsyncClient() as client:
            detail: dict[str, Any] = (await client.get(f"{self.base}/jobs/{job_id}", headers=AUTH)).json()
        return detail

    async def wait_for(self, job_id: str, *states: str, within_s: float = 40.0) -> dict[str, Any]:
        deadline = time.monotonic() + within_s
        while (detail := await self.job(job_id))["status"] not in (
            states or ("completed", "failed", "cancelled")
        ):
            assert time.monotonic() < deadline, f"still {detail['status']}"
            await asyncio.sleep(0.05)
        return detail


@pytest.fixture
def service(environment: dict[str, str], tmp_path: Path, model_server: ModelServer) -> Iterator[Service]:
    opened = Service(
        environment | {"LLM_SERVICE_MODEL": "openai:test", "OPENAI_BASE_URL": model_server.url}, tmp_path
    )
    with opened.api:
        yield opened


async def test_a_job_is_carried_from_the_request_to_the_log_of_the_worker(
    service: Service, model_server: ModelServer
) -> None:
    with service.worker() as worker:
        wait_until_healthy(service.port)
        prompt = "A prompt that no log may hold."
        job = await service.wait_for(
            await service.submit(input_data={"prompt": prompt}, webhook_secret="hush-hush")
        )
        assert job["result"] == {"text": f"echo: {prompt}"}
        lines = [line for line in worker.output().splitlines() if job["job_id"] in line]
        assert lines
        assert all(job["request_id"] in line for line in lines), "the request id is in every line of the job"
        assert job["request_id"] in service.api.output()
        for output in (worker.output(), service.api.output()):
            assert prompt not in output
            assert "hush-hush" not in output
            assert AUTH["X-API-Secret"] not in output
        worker.send(signal.SIGTERM)
        assert worker.wait() == 0


async def test_sigterm_gives_the_job_back_within_the_grace(
    service: Service, model_server: ModelServer
) -> None:
    model_server.script = [Reply(latency_s=30), Reply(text="done")]
    with service.worker(LLM_SERVICE_SHUTDOWN_GRACE="0.2") as worker:
        wait_until_healthy(service.port)
        job_id = await service.submit()
        await service.wait_for(job_id, "processing")
        worker.send(signal.SIGTERM)
        assert worker.wait(10) == 0
    assert (await service.job(job_id))["status"] == "pending"
    with service.worker("next"):
        job = await service.wait_for(job_id)
    assert (job["status"], job["attempt"], job["result"]) == ("completed", 1, {"text": "done"})
    assert [attempt["outcome"] for attempt in job["attempts"]] == ["released", "completed"]


async def test_a_second_sigterm_ends_the_grace(service: Service, model_server: ModelServer) -> None:
    model_server.script = [Reply(latency_s=30)]
    with service.worker() as worker:
        wait_until_healthy(service.port)
        job_id = await service.submit()
        await service.wait_for(job_id, "processing")
        worker.send(signal.SIGTERM)
        worker.wait_for_output("worker stopping")
        asked = time.monotonic()
        worker.send(signal.SIGTERM)
        assert worker.wait(10) == 0
        assert time.monotonic() - asked < 5
    assert (await service.job(job_id))["status"] == "pending"


async def test_a_killed_workers_job_runs_again(
    service: Service, model_server: ModelServer, sql: asyncpg.Connection
) -> None:
    model_server.script = [Reply(latency_s=60), Reply(text="done")]
    with service.worker("first", LLM_SERVICE_LEASE="2") as first:
        wait_until_healthy(service.port)
        job_id = await service.submit()
        await service.wait_for(job_id, "processing")
        first.send(signal.SIGKILL)
    with service.worker("second", LLM_SERVICE_LEASE="2"):
        job = await service.wait_for(job_id)
    assert (job["status"], job["attempt"]) == ("completed", 2)
    assert [attempt["outcome"] for attempt in job["attempts"]] == ["lost", "completed"]
    assert [call["status"] for call in job["llm_calls"]] == ["lost", "succeeded"]
    assert job["usage"]["calls"] == 1


async def test_arqs_own_command_runs_jobs_and_checks(service: Service, model_server: ModelServer) -> None:
    settings = "llm_service.worker.WorkerSettings"
    with Process(["arq", settings], service.environment, service.logs / "arq.log") as worker:
        wait_until_healthy(service.port)
        job = await service.wait_for(await service.submit())
        assert job["status"] == "completed"
        with Process(["arq", "--check", settings], service.environment, service.logs / "check.log") as check:
            assert check.wait() == 0, check.output()
        worker.send(signal.SIGTERM)
        worker.wait()
    with Process(["arq", "--check", settings], service.environment, service.logs / "check.log") as check:
        assert check.wait() == 1
    job_id = await service.submit()
    with Process(["arq", "--burst", settings], service.environment, service.logs / "burst.log") as burst:
        assert await asyncio.to_thread(burst.wait) == 0, burst.output()
    assert (await service.job(job_id))["status"] == "completed"


async def test_an_api_that_is_told_to_stop_exits_with_0(service: Service) -> None:
    with service.worker():
        wait_until_healthy(service.port)
    service.api.send(signal.SIGTERM)
    assert service.api.wait(10) == 0


async def test_an_api_that_leaves_is_not_ready_before_it_stops_to_serve(
    service: Service, tmp_path: Path
) -> None:
    port = free_port()
    settings = {"PORT": str(port), "LLM_SERVICE_LEAVE_DELAY": "4"}
    leaving = Process(["llm-service", "api"], service.environment | settings, tmp_path / "leaving.log")
    with leaving:
        await asyncio.to_thread(wait_until_healthy, port, status="degraded")  # there is no worker
        leaving.send(signal.SIGTERM)
        service.base = f"http://127.0.0.1:{port}/api/v1"
        async with asyncio.timeout(3), httpx.AsyncClient() as client:
            while (await client.get(f"http://127.0.0.1:{port}/health/ready")).status_code == 200:
                await asyncio.sleep(0.05)
        await service.submit()
        assert await asyncio.to_thread(leaving.wait, 15) == 0, leaving.output()
