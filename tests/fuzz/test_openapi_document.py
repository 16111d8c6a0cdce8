"""Requests made up from our own OpenAPI document, right and wrong ones, against a real API process.

`make test-fuzz` runs it for minutes, `FUZZ=short` for under one. `FUZZ_SEED` repeats a run.
"""

import os
import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.acceptance.processes import BIN, Process, bare_environment, free_port, wait_until_healthy
from tests.conftest import SECRET

pytestmark = [pytest.mark.fuzz, pytest.mark.timeout(900)]

SHORT = os.environ.get("FUZZ") == "short"
SECONDS = 30 if SHORT else 300
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "ignored_auth",
)


@pytest.fixture
def port(environment: dict[str, str], tmp_path: Path) -> Iterator[int]:
    number = free_port()
    log = tmp_path / "api.log"
    with Process(["llm-service", "api"], bare_environment(**environment, PORT=str(number)), log) as process:
        wait_until_healthy(number, status="degraded")
        yield number
        output = process.output()
    assert "unhandled error" not in output, output[-3000:]
    assert "Traceback" not in output, output[-3000:]
    assert SECRET not in output


def test_s43_no_request_gets_a_500_or_an_answer_that_is_not_documented(port: int, tmp_path: Path) -> None:
    seed = os.environ.get("FUZZ_SEED") or str(secrets.randbelow(2**31))
    print(f"FUZZ_SEED={seed}, {SECONDS} s")
    command = [
        *(str(BIN / "schemathesis"), "run", f"http://127.0.0.1:{port}/schema/openapi.json"),
        *("--checks", ",".join(CHECKS), "--header", f"X-API-Secret: {SECRET}"),
        *("--max-examples", "10000", "--max-time", str(SECONDS), "--seed", seed, "--workers", "1"),
        *("--request-timeout", "20", "--continue-on-failure", "--no-color", "--warnings", "off"),
        *("--generation-database", "none"),
    ]
    ran = subprocess.run(
        command, cwd=tmp_path, check=False, capture_output=True, text=True, timeout=SECONDS + 200
    )
    print(ran.stdout[-3000:])
    assert ran.returncode == 0, ran.stdout[-20_000:] + ran.stderr[-3000:]
