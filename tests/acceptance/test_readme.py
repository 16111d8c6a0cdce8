"""What the README shows works as it stands there: the first job, and a package with a workflow of its own."""

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.conftest import AUTH
from tests.in_process import serving
from tests.integration.jobs.worker_in_process import working

from llm_service.settings import Settings
from llm_service.workflows import load_workflows

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """The README's fenced blocks of a language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


def one_block(language: str) -> str:
    found = blocks(language)
    assert len(found) == 1, f"the README has {len(found)} blocks of {language}"
    return found[0]


async def run_to_its_end(client: httpx.AsyncClient, body: Mapping[str, Any]) -> Mapping[str, Any]:
    """Submit a body and read the job until it has ended."""
    answer = await client.post("/api/v1/workflow", json=body, headers=AUTH)
    assert answer.status_code == 202, answer.text
    async with asyncio.timeout(20):
        while True:
            job: Mapping[str, Any] = (await client.get(answer.headers["Location"], headers=AUTH)).json()
            if job["status"] not in {"pending", "processing"}:
                return job
            await asyncio.sleep(0.02)


async def test_the_first_job_ends_with_a_result_made_of_what_was_sent(settings: Settings) -> None:
    body = re.search(r"-d '(\{.*?\})'", one_block("sh"), re.DOTALL)
    assert body is not None
    async with serving(settings) as client, working(settings):
        job = await run_to_its_end(client, json.loads(body[1]))
    assert job["status"] == "completed", job["error_message"]
    assert job["username"] == "jane_smith"
    assert [contact["phone"] for contact in job["result"]["contacts"]] == ["+420 777 123 456"]
    assert "ibrary" in job["result"]["meeting_places"][0]["name"]


def test_the_first_jobs_addresses_are_those_of_make_run() -> None:
    assert set(re.findall(r"http://[^/\s]+", one_block("sh"))) == {"http://127.0.0.1:8000"}


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The README's example package, built and installed as pip does it, where this process finds it."""
    package, site = tmp_path / "field-notes", tmp_path / "site"
    package.mkdir()
    (package / "pyproject.toml").write_text(one_block("toml"))
    (package / "field_notes.py").write_text(one_block("python"))
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"),
            *("--no-index", "--no-deps", "--no-build-isolation", "--target", str(site), str(package)),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    monkeypatch.syspath_prepend(str(site))


@pytest.mark.usefixtures("installed")
async def test_the_example_package_brings_a_workflow_that_runs(settings: Settings) -> None:
    workflow = load_workflows()["field_notes"]
    body = {
        "workflow_name": "field_notes",
        "input_data": {"text": "The pump failed at noon. Who has the key of the shed?"},
    }
    async with serving(settings) as client, working(settings, workflow):
        listed = (await client.get("/api/v1/workflows", headers=AUTH)).json()["workflows"]
        refused = await client.post(
            "/api/v1/workflow", json={**body, "input_data": {"text": 7}}, headers=AUTH
        )
        job = await run_to_its_end(client, body)
    assert "field_notes" in [entry["name"] for entry in listed]
    assert refused.json()["detail"]["error"] == "InvalidInputData"
    assert job["status"] == "completed", job["error_message"]
    assert set(job["result"]) == {"summary", "open_questions"}
    assert "pump" in job["result"]["summary"]


def test_the_example_package_has_under_20_lines() -> None:
    lines = [line for block in ("toml", "python") for line in one_block(block).splitlines() if line.strip()]
    assert len(lines) < 20, f"it has {len(lines)}"


def test_the_readme_fits_on_a_screen_and_its_links_lead_somewhere() -> None:
    assert len(README.splitlines()) <= 100
    for target in re.findall(r"\]\(([^)#:]+)", README):
        assert (Path(__file__).parents[2] / target).exists(), f"the README links to {target}"
