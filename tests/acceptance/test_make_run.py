"""`llm-service run`, which is `make run` once the environment is there: from nothing to a result, and no trace after."""

import json
import shlex
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.acceptance.processes import (
    Process,
    bare_environment,
    command_of,
    descendants,
    free_port,
    wait_until_gone,
    wait_until_healthy,
)

pytestmark = [pytest.mark.xdist_group("make-run"), pytest.mark.timeout(180)]


class Home:
    """A state directory and a port: where one `run` lives."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.port = free_port()
        self.environment = bare_environment(PORT=str(self.port), LLM_SERVICE_STATE_DIR=str(state))
        self._count = 0

    def run(self, **extra: str) -> Process:
        self._count += 1
        log = self.state.parent / f"{self.state.name}-{self._count}.log"
        return Process(["llm-service", "run"], self.environment | extra, log)


@pytest.fixture(scope="session")
def home() -> Iterator[Home]:
    with tempfile.TemporaryDirectory(prefix="llm-run-", ignore_cleanup_errors=True) as directory:
        Path(directory).chmod(0o755)
        yield Home(Path(directory) / "state")


def curl(command: str) -> Any:
    ran = subprocess.run(shlex.split(command), check=True, capture_output=True, timeout=20)
    return json.loads(ran.stdout)


def pasted_commands(screen: str) -> list[str]:
    """The curl commands on the screen, as a newcomer would copy them."""
    return ["curl" + part.split("\n\n")[0].rstrip() for part in screen.split("\n  curl")[1:]]


def test_from_nothing_to_a_result_and_nothing_left(home: Home) -> None:
    with home.run() as run:
        screen = run.wait_for_output("is ready after")
        wait_until_healthy(home.port)
        submit, list_today = pasted_commands(run.output())[:2]
        job_id = curl(submit)["job_id"]
        deadline = time.monotonic() + 20
        while (jobs := curl(list_today)["jobs"])[0]["status"] != "completed":
            assert time.monotonic() < deadline, jobs
        assert (jobs[0]["job_id"], jobs[0]["username"]) == (job_id, "jane_smith")
        secret = screen.split("API secret")[1].split()[0]
        detail = curl(
            f"curl -s http://127.0.0.1:{home.port}/api/v1/jobs/{job_id} -H 'X-API-Secret: {secret}'"
        )
        assert detail["result"]["contacts"][0]["name"] == "Anna Novak"
        assert detail["result"]["contacts"][0]["phone"] == "+420 777 123 456"
        everyone = descendants(run.pid)
        assert len(everyone) >= 5, "PostgreSQL, Valkey, API and worker"
        run.send(signal.SIGINT)
        assert run.wait() == 0
        wait_until_gone(everyone)
    assert (home.state / "secrets.json").stat().st_mode & 0o777 == 0o600
    password = json.loads((home.state / "secrets.json").read_text())["LLM_SERVICE_ADMIN_PASSWORD"]
    assert f"http://127.0.0.1:{home.port}/admin       (password: {password})" in screen


def test_a_second_start_keeps_secrets_and_jobs(home: Home) -> None:
    with home.run() as run:
        run.wait_for_output("is ready after")
        job_id = curl(pasted_commands(run.output())[0])["job_id"]
        run.send(signal.SIGINT)
        assert run.wait() == 0
    kept = json.loads((home.state / "secrets.json").read_text())
    with home.run() as run:
        run.wait_for_output("is ready after")
        secret = kept["LLM_SERVICE_API_SECRET"]
        assert secret in run.output()
        job = curl(f"curl -s http://127.0.0.1:{home.port}/api/v1/jobs/{job_id} -H 'X-API-Secret: {secret}'")
        assert job["job_id"] == job_id

        with home.run() as second:
            assert second.wait() == 2
            assert "already" in second.output()

        everyone = descendants(run.pid)
        run.send(signal.SIGKILL)
        wait_until_gone(everyone)


def test_a_worker_that_dies_is_started_again(home: Home) -> None:
    with home.run() as run:
        run.wait_for_output("is ready after")
        worker = next(pid for pid in descendants(run.pid) if command_of(pid).endswith("llm_service worker"))
        subprocess.run(["kill", "-9", str(worker)], check=True)
        run.wait_for_output("worker ended (killed by SIGKILL); starting it again")
        deadline = time.monotonic() + 20
        while run.output().count("worker ready") < 2:
            assert time.monotonic() < deadline, run.output()[-2000:]
            time.sleep(0.05)
        run.send(signal.SIGINT)
        assert run.wait() == 0


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("LLM_SERVICE_MODEL", "gpt-something", "LLM_SERVICE_MODEL"),
        ("LLM_SERVICE_API_SECRET", "short", "LLM_SERVICE_API_SECRET"),
        ("LLM_SERVICE_WORKER_CONCURRENCY", "many", "LLM_SERVICE_WORKER_CONCURRENCY"),
    ],
)
def test_a_wrong_setting_ends_everything_with_one_line(
    home: Home, variable: str, value: str, says: str
) -> None:
    with home.run(**{variable: value}) as run:
        assert run.wait() == 2
        assert says in run.output()
        assert "Traceback" not in run.output()


def test_a_taken_port_is_named(home: Home) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with home.run(PORT=str(port)) as run:
            assert run.wait() == 2
            assert f"PORT {port}" in run.output()
