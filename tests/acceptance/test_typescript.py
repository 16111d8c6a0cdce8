"""A TypeScript front end: types from the document, a strict client that compiles, and that works on the service."""

import asyncio
import json
import re
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from tests.conftest import SECRET
from tests.in_process import serving

from llm_service.app import create_app
from llm_service.settings import Settings, load_settings

pytestmark = [pytest.mark.timeout(600), pytest.mark.xdist_group("typescript")]

ROOT = Path(__file__).resolve().parents[2]
SOURCES = Path(__file__).parent / "typescript"
PAGE = ROOT / "docs" / "clients.md"
OFFLINE = re.compile(r"ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ETIMEDOUT|ENETUNREACH")


async def fetch_document() -> dict[str, Any]:
    settings = load_settings(
        {
            "DATABASE_URL": "postgresql://nobody@localhost:1/nothing",
            "REDIS_URL": "redis://localhost:1/0",
            "LLM_SERVICE_API_SECRET": SECRET,
            "LLM_SERVICE_MODEL": "offline",
        }
    )
    async with serving(settings) as client:
        document: dict[str, Any] = (await client.get("/schema/openapi.json")).json()
    return document


class Project:
    """A copy of the client's folder with its packages installed."""

    def __init__(self, folder: Path, npm: str) -> None:
        self.folder = folder
        self._npm = npm

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self._npm, *arguments],
            cwd=self.folder,
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
        )

    def generate(self, document: dict[str, Any]) -> None:
        (self.folder / "openapi.json").write_text(json.dumps(document))
        made = self.run("run", "types")
        assert made.returncode == 0, made.stdout

    def check(self) -> list[str]:
        """What the strict compiler complains about, as `file(line): code`."""
        checked = self.run("run", "check")
        found = re.findall(r"^(\w+\.ts)\((\d+),\d+\): error (TS\d+)", checked.stdout, re.MULTILINE)
        assert bool(found) == (checked.returncode != 0), checked.stdout
        return [f"{file}({line}): {code}" for file, line, code in found]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Project:
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        pytest.skip("Node and npm are not installed: the TypeScript client was not compiled")
    folder = tmp_path_factory.mktemp("typescript") / "client"
    shutil.copytree(SOURCES, folder, ignore=shutil.ignore_patterns("node_modules"))
    project = Project(folder, npm)
    done = project.run("ci", "--ignore-scripts", "--no-audit", "--no-fund", "--fetch-retries=1")
    if done.returncode != 0 and OFFLINE.search(done.stdout):
        pytest.skip("npm can't reach its packages: the TypeScript client was not compiled")
    assert done.returncode == 0, done.stdout
    return project


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return asyncio.run(fetch_document())


@pytest.fixture
def project(installed: Project, document: dict[str, Any], tmp_path: Path) -> Project:
    """A folder of this test alone, with types of the document; the packages are shared."""
    folder = tmp_path / "client"
    shutil.copytree(SOURCES, folder, ignore=shutil.ignore_patterns("node_modules"))
    (folder / "node_modules").symlink_to(installed.folder / "node_modules", target_is_directory=True)
    project = Project(folder, shutil.which("npm") or "npm")
    project.generate(document)
    return project


def test_the_client_compiles_in_strict_mode(project: Project) -> None:
    assert project.check() == []


MISTAKES = {
    'export const a: Submit = { workflow: "completion", input_data: {} };': "TS2353",
    'export const b: Submit = { workflow_name: "completion" };': "TS2741",
    'export const c: Submit = { workflow_name: "completion", input_data: [] };': "TS2322",
    'export const d: JobsQuery = { limit_results: "Yesterday" };': "TS2322",
    'export const e: JobsQuery = { status: "done" };': "TS2322",
    "export const f = (job: Job): number => job.duration_ms;": "TS2322",
    "export const g = (page: JobsPage): string => page.items.join();": "TS2339",
    "export const h = (body: WebhookBody): string => body.result_url;": "TS2322",
    'export const i = (body: WebhookBody): boolean => body.event === "workflow.done";': "TS2367",
}


def test_each_mistake_in_a_client_is_found(project: Project) -> None:
    imports = 'import type { Job, JobsPage, JobsQuery, Submit, WebhookBody } from "./client.js";'
    (project.folder / "mistakes.ts").write_text("\n".join([imports, *MISTAKES]) + "\n")
    assert project.check() == [
        f"mistakes.ts({line}): {code}" for line, code in enumerate(MISTAKES.values(), 2)
    ]


def test_a_field_that_the_service_renames_breaks_the_client(
    project: Project, document: dict[str, Any]
) -> None:
    changed = json.loads(json.dumps(document))
    properties = changed["components"]["schemas"]["WorkflowSubmitRequest"]["properties"]
    properties["user_name"] = properties.pop("username")
    project.generate(changed)
    [complaint] = project.check()
    assert re.fullmatch(r"usage\.ts\(\d+\): TS2561", complaint)


@asynccontextmanager
async def listening(settings: Settings) -> AsyncIterator[str]:
    """The app on a free port of loopback."""
    config = uvicorn.Config(create_app(settings), port=0, log_config=None, ws="none", lifespan="on")
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve())
    while not server.started:
        assert not task.done(), "the server ended at once"
        await asyncio.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        await task


SCRIPT = """
import { LLMService, ServiceError, readWebhook } from "./built/client.js";
import { askForContacts } from "./built/usage.js";
const [base, secret, webhook] = process.argv.slice(2);
const service = new LLMService(base, secret);
const accepted = await service.submit({ workflow_name: "completion", input_data: { prompt: "Hello" } }, "key-1");
const again = await service.submit({ workflow_name: "completion", input_data: { prompt: "Hello" } }, "key-1");
const refused = await new LLMService(base, "wrong").list().catch((error) => error);
console.log(JSON.stringify({
  contacts: await askForContacts(service),
  isReplayed: accepted.job_id === again.job_id,
  newest: (await service.list({ limit_results: 1 })).jobs.length,
  job: (await service.job(accepted.job_id)).input_data,
  refused: refused instanceof ServiceError && [refused.status, refused.detail.error],
  webhook: readWebhook(webhook),
}));
"""


async def test_the_client_works_on_the_service(
    project: Project, settings: Settings, document: dict[str, Any]
) -> None:
    built = await asyncio.to_thread(project.run, "exec", "--", "tsc", "--noEmit", "false")
    assert built.returncode == 0, built.stdout
    (project.folder / "run.mjs").write_text(SCRIPT)
    told = document["webhooks"]["workflow.failed"]["post"]["requestBody"]["content"]["application/json"]
    body = json.dumps(told["examples"]["failed"]["value"])
    async with listening(settings) as base:
        node = await asyncio.create_subprocess_exec(
            *("node", "run.mjs", base, SECRET, body),
            cwd=project.folder,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        said, complaint = await node.communicate()
    assert node.returncode == 0, complaint.decode()
    assert json.loads(said) == {
        "contacts": ["generate contacts: pending"],
        "isReplayed": True,
        "newest": 1,
        "job": {"prompt": "Hello"},
        "refused": [401, "InvalidAPISecret"],
        "webhook": "ModelTimeout: The model did not answer within 120 seconds.",
    }


def test_the_lock_names_no_registry() -> None:
    text = (SOURCES / "package-lock.json").read_text()
    packages = [package for name, package in json.loads(text)["packages"].items() if name]
    assert "resolved" not in text
    assert "://" not in text
    assert all(package["integrity"].startswith("sha512-") for package in packages)


def snippet(language: str) -> str:
    [code] = re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    return str(code)


def test_the_page_shows_the_typescript_that_is_compiled_here() -> None:
    assert snippet("ts") == (SOURCES / "usage.ts").read_text()
    script = json.loads((SOURCES / "package.json").read_text())["scripts"]["types"]
    assert script.removeprefix("openapi-typescript openapi.json ") in PAGE.read_text()


async def test_the_python_of_the_page_works_on_the_service(client: httpx.AsyncClient) -> None:
    shown: dict[str, Any] = {"__name__": "shown"}
    exec(compile(snippet("python"), PAGE, "exec"), shown)
    client.headers["X-API-Secret"] = SECRET
    job = {"workflow_name": "completion", "input_data": {"prompt": "Say hello."}, "username": "jane_smith"}
    accepted = [await shown["submit"](client, job, "key-1") for _ in range(2)]
    assert accepted[0] == accepted[1]
    assert [found["job_id"] for found in await shown["last_week"](client, "jane_smith")] == [
        accepted[0]["job_id"]
    ]
    with pytest.raises(shown["ServiceError"], match=r"^UnknownWorkflow: workflow_name names no workflow"):
        await shown["submit"](client, job | {"workflow_name": "nope"}, "key-2")
