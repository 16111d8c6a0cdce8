"""Who logs in with the reader's password sees everything and changes nothing."""

import re
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import asyncpg
import httpx
import pytest
import structlog
from tests.admin.conftest import BASE, FETCH, PASSWORD, Browser, csrf_in, log_in
from tests.admin.test_actions import add, states
from tests.admin.test_guard import METHODS, admin_paths
from tests.in_process import serving

from llm_service.errors import SettingsInvalid
from llm_service.settings import Settings, load_settings

__all__ = ["add"]  # a fixture

READER_PASSWORD = "only-looking-around-3"
READING = ("GET", "HEAD", "OPTIONS")


@pytest.fixture
def settings(environment: dict[str, str]) -> Settings:
    return load_settings(
        environment
        | {"LLM_SERVICE_ADMIN_PASSWORD": PASSWORD, "LLM_SERVICE_ADMIN_READER_PASSWORD": READER_PASSWORD}
    )


@pytest.fixture
async def reader(browser: httpx.AsyncClient) -> Browser:
    assert (await log_in(browser, READER_PASSWORD)).status_code == 303
    page = await browser.get("/admin/queue")
    assert page.status_code == 200, page.text[:2000]
    return Browser(browser, csrf_in(page.text))


@pytest.fixture
async def admin_beside(settings: Settings) -> AsyncIterator[Browser]:
    """The admin, in another browser at the same service."""
    async with serving(settings) as client:
        client.base_url = httpx.URL(BASE)
        await log_in(client)
        yield Browser(client, csrf_in((await client.get("/admin/queue")).text))


async def role(sql: asyncpg.Connection) -> str:
    found: str = await sql.fetchval("SELECT role FROM llm_admin_sessions")
    return found


# --- what a reader cannot do ------------------------------------------------------------------------------


@pytest.mark.parametrize("action", ["cancel", "retry", "redeliver", "delete"])
async def test_s28_no_action_of_a_reader_is_done(
    reader: Browser, sql: asyncpg.Connection, add: Any, action: str
) -> None:
    """With the right cookie and the right token: by selection, by filter, as a preview and as a form."""
    jobs = [*await add("pending"), *await add("failed"), *await add("completed")]
    before = await states(sql)
    ids = [str(job_id) for job_id in jobs]
    by_filter = {"action": action, "filter": "", "expected": 9, "until": "2099-01-01T00:00:00Z"}
    for body in ({"action": action, "job_ids": ids}, by_filter):
        for path in ("/admin/actions", "/admin/actions/preview"):
            answer = await reader.post(path, body)
            assert (answer.status_code, answer.json()["detail"]["error"]) == (403, "ReaderCannotAct")
    for job_id in ids:
        form = {"action": action, "job_id": job_id, "csrf_token": reader.headers["X-CSRF-Token"]}
        page = await reader.client.post("/admin/actions", data=form)
        assert page.status_code == 403
        assert page.headers["content-type"].startswith("text/html")
        assert "You are logged in for reading" in page.text
    assert await states(sql) == before
    assert await sql.fetchval("SELECT count(*) FROM llm_admin_audit") == 0


async def test_s28_a_reader_is_refused_by_method_and_not_by_route(
    reader: Browser, settings: Settings
) -> None:
    """A route that comes later is closed to readers too, and so is a path that no route answers."""
    for path in [
        *admin_paths(settings),
        "/admin/nothing",
        "/admin/queue/",
        "/Admin/logout",
        "/admin/logout/x",
    ]:
        if path == "/admin/logout":
            continue
        for method in set(METHODS) - set(READING):
            answer = await reader.client.request(method, path, headers=reader.headers)
            assert answer.status_code == 403, f"{method} {path}: {answer.status_code}"


async def test_s28_a_refusal_is_in_the_log_with_session_and_role(reader: Browser) -> None:
    with structlog.testing.capture_logs() as lines:
        await reader.post("/admin/actions", {"action": "cancel", "job_ids": [str(UUID(int=1))]})
    (line,) = [line for line in lines if line["event"] == "reader refused"]
    assert (line["role"], line["method"], line["path"]) == ("reader", "POST", "/admin/actions")
    assert re.fullmatch("[0-9a-f]{12}", line["session"])


async def test_s28_a_row_that_says_admin_makes_no_admin(reader: Browser, sql: asyncpg.Connection) -> None:
    assert await role(sql) == "reader"
    await sql.execute("UPDATE llm_admin_sessions SET role = 'admin'")
    assert (await reader.client.get("/admin/queue")).status_code == 303


# --- what a reader sees -----------------------------------------------------------------------------------


async def test_a_reader_sees_what_an_admin_sees_but_for_the_buttons(
    reader: Browser, admin_beside: Browser, add: Any
) -> None:
    jobs = [*await add("pending"), *await add("failed"), *await add("completed")]
    for path in ("/admin/queue", "/admin/queue/rows", *(f"/admin/queue/{job_id}" for job_id in jobs)):
        for_reader, for_admin = [
            (await who.client.get(path, headers=FETCH)).text for who in (reader, admin_beside)
        ]
        seen = re.compile(
            r"user=jane|generate\+contacts|<span>Pending|<span>Failed|<span>Completed|ago</time>"
        )
        assert seen.findall(for_reader) == seen.findall(for_admin) != []
        offers = re.compile(r'action="/admin/actions"|data-action=|type="checkbox" (?:name|id="pick)')
        assert offers.search(for_admin), path
        assert not offers.search(for_reader), path
    assert "Read only" in (await reader.client.get("/admin/queue")).text
    assert "Read only" not in (await admin_beside.client.get("/admin/queue")).text
    for path in (
        "/admin/insight?part=all",
        "/admin/suggestions?column=action",
        f"/admin/queue/{jobs[0]}/input.json",
    ):
        assert (await reader.client.get(path)).status_code == 200


async def test_a_reader_can_sign_out_and_come_back_as_admin(reader: Browser, sql: asyncpg.Connection) -> None:
    form = {"csrf_token": reader.headers["X-CSRF-Token"]}
    assert (await reader.client.post("/admin/logout", data=form)).status_code == 303
    assert await sql.fetchval("SELECT count(*) FROM llm_admin_sessions") == 0
    await log_in(reader.client)
    assert await role(sql) == "admin"


async def test_a_login_in_another_role_ends_the_session_before_it(
    reader: Browser, sql: asyncpg.Connection
) -> None:
    """From a form that another tab still has."""
    data = {"password": PASSWORD, "csrf_token": reader.headers["X-CSRF-Token"]}
    assert (await reader.client.post("/admin", data=data)).status_code == 303
    assert await role(sql) == "admin", "one session, the later one"


async def test_the_log_says_which_session_has_which_role(browser: httpx.AsyncClient) -> None:
    for password, word in ((READER_PASSWORD, "reader"), (PASSWORD, "admin")):
        browser.cookies.clear()
        with structlog.testing.capture_logs() as lines:
            await log_in(browser, password)
        (line,) = [line for line in lines if line["event"] == "admin logged in"]
        assert line["role"] == word
        assert re.fullmatch("[0-9a-f]{12}", line["session"])
        assert line["peer"] == "127.0.0.1"


# --- the passwords ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "admin_stays", "reader_stays"),
    [
        ({"LLM_SERVICE_ADMIN_READER_PASSWORD": "another-reader-1"}, True, False),
        ({"LLM_SERVICE_ADMIN_PASSWORD": "another-password-1"}, False, True),
        ({"LLM_SERVICE_ADMIN_READER_PASSWORD": ""}, True, False),
        (
            {
                "LLM_SERVICE_ADMIN_PASSWORD": READER_PASSWORD,
                "LLM_SERVICE_ADMIN_READER_PASSWORD": PASSWORD,
            },
            False,
            False,
        ),
    ],
    ids=["reader changed", "admin changed", "reader taken away", "exchanged"],
)
async def test_s28_a_new_password_ends_the_sessions_of_its_role(
    reader: Browser,
    admin_beside: Browser,
    environment: dict[str, str],
    changed: dict[str, str],
    admin_stays: bool,
    reader_stays: bool,
) -> None:
    both = {"LLM_SERVICE_ADMIN_PASSWORD": PASSWORD, "LLM_SERVICE_ADMIN_READER_PASSWORD": READER_PASSWORD}
    async with serving(load_settings(environment | both | changed)) as later:
        later.base_url = httpx.URL(BASE)
        for who, stays in ((admin_beside, admin_stays), (reader, reader_stays)):
            cookie = f"llm_admin={who.client.cookies['llm_admin']}"
            page = await later.get("/admin/queue", headers={"Cookie": cookie})
            assert page.status_code == (200 if stays else 303)
            if stays:
                assert ("Read only" in page.text) == (who is reader)


@pytest.mark.parametrize(
    ("passwords", "message"),
    [
        (
            {"READER_PASSWORD": "elevenchars", "PASSWORD": PASSWORD},
            "LLM_SERVICE_ADMIN_READER_PASSWORD needs at least 12 characters.",
        ),
        (
            {"READER_PASSWORD": PASSWORD, "PASSWORD": PASSWORD},
            "LLM_SERVICE_ADMIN_READER_PASSWORD must differ from LLM_SERVICE_ADMIN_PASSWORD: it is to open less.",
        ),
        (
            {"READER_PASSWORD": READER_PASSWORD},
            "LLM_SERVICE_ADMIN_READER_PASSWORD needs LLM_SERVICE_ADMIN_PASSWORD beside it: that opens the page.",
        ),
    ],
    ids=["short", "the same", "alone"],
)
def test_s28_passwords_that_would_not_do_are_refused_at_the_start(
    environment: dict[str, str], passwords: dict[str, str], message: str
) -> None:
    with pytest.raises(SettingsInvalid) as refused:
        load_settings(environment | {f"LLM_SERVICE_ADMIN_{name}": value for name, value in passwords.items()})
    assert refused.value.message == message


async def test_s28_without_a_readers_password_there_is_one_role(environment: dict[str, str]) -> None:
    """Not even an empty password opens anything."""
    async with serving(load_settings(environment | {"LLM_SERVICE_ADMIN_PASSWORD": PASSWORD})) as browser:
        browser.base_url = httpx.URL(BASE)
        for password in (READER_PASSWORD, ""):
            assert (await log_in(browser, password)).status_code == 401
        assert (await log_in(browser)).status_code == 303
