"""The documentation names every setting, endpoint and error code; its links and its receiver work."""

import base64
import json
import re
import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client import Counter, Gauge, Histogram
from standardwebhooks import WebhookVerificationError
from tests.in_process import serving

from llm_service import errors, metrics
from llm_service.settings import documented, load_settings
from llm_service.webhooks.signing import signature_headers

ROOT = Path(__file__).parents[2]
PAGES = {path: path.read_text(encoding="utf-8") for path in (ROOT / "README.md", *ROOT.glob("docs/**/*.md"))}
TEXT = "\n".join(PAGES.values())
CONFIGURATION = (ROOT / "docs/configuration.md").read_text(encoding="utf-8")
# What a page may name besides the settings of the service.
OTHER_VARIABLES = {"LLM_SERVICE_STATE_DIR"}
BASES = {errors.RequestError, errors.RetryableRequestError, errors.JobFailure}


@pytest.mark.parametrize("variable", documented())
def test_every_setting_has_its_row(variable: str) -> None:
    assert f"\n| `{variable}` |" in CONFIGURATION, f"docs/configuration.md has no row for {variable}"


def test_every_default_is_the_one_in_the_code() -> None:
    shown = dict(re.findall(r"^\| `([A-Z_]+)` \| `([^`]+)` \|", CONFIGURATION, re.MULTILINE))
    defaults = {name: text.strip("'") for name, text in documented().items()}
    wrong = {name: text for name, text in shown.items() if text not in {defaults.get(name), "{}"}}
    assert wrong.keys() <= {"DATABASE_URL", "REDIS_URL"}, f"docs/configuration.md has other defaults: {wrong}"


def test_no_page_names_a_setting_that_is_not_there() -> None:
    named = set(re.findall(r"\bLLM_SERVICE_[A-Z_]*[A-Z]\b", TEXT))
    assert named <= documented().keys() | OTHER_VARIABLES


def test_the_files_for_docker_name_only_settings_that_are_there() -> None:
    allowed = documented().keys() | {"POSTGRES_PASSWORD"}
    example = set(re.findall(r"^#?([A-Z_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE))
    assert example <= allowed
    compose = (ROOT / "compose.yaml").read_text(encoding="utf-8")
    shared = compose[compose.index("x-environment:") : compose.index("services:")]
    # HOST and PORT are the container's own affair.
    assert set(re.findall(r"^  ([A-Z_]+):", shared, re.MULTILINE)) | {"HOST", "PORT"} == documented().keys()
    assert compose.count("environment: *environment") == 2, "api and worker share one environment"


@pytest.fixture
async def document() -> dict[str, Any]:
    settings = load_settings(
        {
            "DATABASE_URL": "postgresql://nobody@127.0.0.1:1/nowhere",
            "REDIS_URL": "redis://127.0.0.1:1/0",
            "LLM_SERVICE_API_SECRET": "0123456789abcdef",
            "LLM_SERVICE_MODEL": "offline",
        }
    )
    async with serving(settings) as client:
        answer: httpx.Response = await client.get("/schema/openapi.json")
    found: dict[str, Any] = answer.json()
    return found


async def test_every_endpoint_is_named(document: dict[str, Any]) -> None:
    missing = [path for path in document["paths"] if f"{path}`" not in TEXT]
    assert missing == [], f"neither README nor docs name {missing}"


async def test_every_parameter_of_the_list_is_explained(document: dict[str, Any]) -> None:
    parameters = {entry["name"] for entry in document["paths"]["/api/v1/jobs"]["get"]["parameters"]}
    jobs = PAGES[ROOT / "docs/jobs.md"]
    assert [name for name in sorted(parameters) if f"`{name}`" not in jobs] == []


def test_every_error_code_is_explained() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and kind not in BASES]
    codes = [kind.__name__ for kind in kinds if issubclass(kind, errors.RequestError | errors.JobFailure)]
    assert [code for code in codes if f"`{code}`" not in PAGES[ROOT / "docs/jobs.md"]] == []


def test_every_metric_is_listed() -> None:
    operations = PAGES[ROOT / "docs/operations.md"]
    for metric in (
        value for value in vars(metrics).values() if isinstance(value, Counter | Gauge | Histogram)
    ):
        family = next(iter(metric.describe()))
        name = f"{family.name}_total" if isinstance(metric, Counter) else family.name
        assert re.search(rf"`{name}[`{{]", operations), f"docs/operations.md does not list {name}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^)#:\s]*)(?:#([\w-]+))?\)", PAGES[page]):
        linked = (page.parent / target) if target else page
        assert linked.exists(), f"{page.name} links to {target}"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", linked.read_text(encoding="utf-8"), re.MULTILINE)
            slugs = [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings]
            assert anchor in slugs, f"{page.name} links to {target}#{anchor}"


@pytest.mark.parametrize(
    "decision", sorted((ROOT / "docs/decisions").glob("0*.md")), ids=lambda path: path.stem
)
def test_a_decision_fits_on_a_page_and_is_listed(decision: Path) -> None:
    assert len(decision.read_text(encoding="utf-8").split()) < 450
    assert decision.name in PAGES[ROOT / "docs/decisions/README.md"]


SECRETS = ["a plain secret", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"]


def webhook_snippet(language: str) -> str:
    blocks = re.findall(
        rf"^```{language}\n(.*?)^```$", PAGES[ROOT / "docs/webhooks.md"], re.DOTALL | re.MULTILINE
    )
    assert len(blocks) == 1
    return str(blocks[0])


@pytest.mark.parametrize("secret", SECRETS)
def test_receivers_in_python_verify_as_shown(secret: str) -> None:
    shown: dict[str, Any] = {}
    exec(webhook_snippet("python"), shown)
    body = b'{"event": "workflow.completed"}'
    headers = signature_headers(["a newer one", secret], "msg_1", datetime.now(UTC), body)
    assert shown["receive"](secret, headers, body) == {"event": "workflow.completed"}
    assert shown["receive"](secret, headers, body) is None, "the second time it is skipped"
    old = signature_headers([secret], "msg_2", datetime.now(UTC) - timedelta(minutes=6), body)
    for sent, received in ((headers, body.replace(b"completed", b"cancelled")), (old, body)):
        with pytest.raises(WebhookVerificationError):
            shown["receive"](secret, sent, received)


TYPES = r"(?<=[\w)]): (?:string|boolean|unknown|Buffer|Record<string, string>)(?=[,) ]| =)|<string>(?=\()"
"""The annotations that the snippet uses: without them it is JavaScript."""


@pytest.mark.parametrize("secret", SECRETS)
def test_receivers_in_typescript_verify_as_shown(secret: str, tmp_path: Path) -> None:
    """tsc compiles what clients.md shows; this one runs: types stripped, on whatever Node there is."""
    if (node := shutil.which("node")) is None:
        pytest.skip("Node.js is not installed: the receiver in TypeScript was not run")
    javascript = re.sub(TYPES, "", webhook_snippet("ts"))
    body = '{"event":"workflow.completed","username":"Žofie"}'.encode()
    now = datetime.now(UTC)
    good = signature_headers(["a newer one", secret], "msg_1", now, body)
    cases = [
        (good, body, "workflow.completed"),
        (good, body, "null"),
        (good, body.replace(b"completed", b"cancelled"), "the signature is not ours"),
        (good | {"webhook-id": "msg_9"}, body, "the signature is not ours"),
        ({}, body, "the signature is not ours"),
        (signature_headers(["another"], "msg_2", now, body), body, "the signature is not ours"),
        (signature_headers([secret], "msg_3", now - timedelta(minutes=6), body), body, "not of this moment"),
    ]
    (tmp_path / "receive.mjs").write_text(javascript, encoding="utf-8")
    (tmp_path / "run.mjs").write_text(
        """
        import { receive } from "./receive.mjs";
        const [secret, cases] = JSON.parse(process.argv[2]);
        for (const [headers, body] of cases) {
          try {
            const message = receive(secret, headers, Buffer.from(body, "base64"));
            console.log(message === null ? "null" : message.event);
          } catch (error) {
            console.log(error.message);
          }
        }
        """
    )
    told = json.dumps([secret, [(headers, base64.b64encode(sent).decode()) for headers, sent, _ in cases]])
    ran = subprocess.run(
        [node, str(tmp_path / "run.mjs"), told], check=False, capture_output=True, text=True, timeout=60
    )
    assert ran.returncode == 0, ran.stderr
    answers = ran.stdout.splitlines()
    assert len(answers) == len(cases)
    for answer, (_, _, expected) in zip(answers, cases, strict=True):
        assert expected in answer
