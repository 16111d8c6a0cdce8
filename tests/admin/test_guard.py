"""Who comes into /admin and what every answer there carries. The numbers are those of the list of threats."""

import re
import time
from typing import Any

import asyncpg
import httpx
import pytest
from litestar._parsers import parse_url_encoded_form_data
from tests.admin.conftest import BASE, FETCH, PASSWORD, Browser, csrf_in, log_in
from tests.conftest import SECRET
from tests.in_process import serving

from llm_service.admin.guard import cookie_token, is_admin, local_path
from llm_service.app import create_app
from llm_service.errors import SettingsInvalid
from llm_service.settings import Settings, load_settings

NOBODY = "11111111-1111-7111-8111-111111111111"
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": CSP,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
    "cross-origin-opener-policy": "same-origin",
}
ACTION = {"action": "cancel", "job_ids": [NOBODY]}


def admin_paths(settings: Settings) -> list[str]:
    paths = {re.sub(r"\{[^}]*\}", NOBODY, route.path_format) for route in create_app(settings).routes}
    found = sorted(path for path in paths if path.startswith("/admin") and path != "/admin")
    assert {"/admin/queue", f"/admin/queue/{NOBODY}", "/admin/actions", "/admin/logout"} <= set(found)
    return found


# --- sessions and the API ---------------------------------------------------------------------------------


async def test_s07_the_session_opens_no_api_and_the_secret_no_page(admin: Browser) -> None:
    assert (await admin.client.get("/api/v1/jobs")).status_code == 401
    assert (await admin.client.get("/api/v1/jobs", headers=admin.headers)).status_code == 401
    admin.client.cookies.clear()
    page = await admin.client.get("/admin/queue", headers={"X-API-Secret": SECRET})
    assert page.status_code == 303
    wrong = await admin.client.get("/admin/queue", headers={"X-API-Secret": SECRET} | FETCH)
    assert wrong.status_code == 401


async def test_s07_no_page_shows_a_secret(admin: Browser, settings: Settings) -> None:
    answers = [await admin.client.get(path) for path in ("/admin/queue", f"/admin/queue/{NOBODY}", "/admin")]
    page = await admin.client.get("/admin/queue")
    answers += [await admin.client.get(path) for path in set(re.findall(r'/admin/static/[^"\s]+', page.text))]
    assert len(answers) > 4
    for answer in answers:
        shown = answer.text + repr(answer.headers)
        assert SECRET not in shown
        assert PASSWORD not in shown
        assert settings.database_url not in shown


async def test_every_path_needs_a_session(browser: httpx.AsyncClient, settings: Settings) -> None:
    """Also those that no route answers, in any spelling, with any cookie."""
    strange = ["/admin/nothing", "/ADMIN/queue", "//admin//queue", "/admin/./queue", "/admin/static/../queue"]
    for path in [*admin_paths(settings), *strange]:
        if path.startswith("/admin/static/") and ".." not in path:
            continue
        for cookie in (
            "",
            "llm_admin=" + "x" * 43,
            "llm_admin=short",
            'llm_admin="',
            "llm_admin=a; llm_admin=b",
        ):
            plain = await browser.request("GET", BASE + path, headers={"Cookie": cookie})
            assert plain.status_code == 303, f"{path} {cookie}: {plain.status_code}"
            assert plain.headers["location"].startswith("/admin")
            assert plain.content == b""
            script = await browser.request("GET", BASE + path, headers={"Cookie": cookie} | FETCH)
            assert script.status_code == 401, path
            assert script.json()["detail"]["error"] == "SessionNeeded"


@pytest.mark.parametrize(
    "value", ['"' + '\\"' * 100_000 + '"', '"' + "\\101" * 50_000 + '"', "; " * 200_000, "=" * 400_000]
)
def test_s45_a_hostile_cookie_is_read_at_once(value: str) -> None:
    """Of a stranger: it is looked at before anything is known of a session."""
    headers = [(b"cookie", b"llm_admin=" + value.encode())]
    started = time.perf_counter()
    assert cookie_token({"scheme": "http", "headers": headers}) is None
    assert time.perf_counter() - started < 0.5


@pytest.mark.parametrize(
    "others",
    ["a=1; {}", "{}; b=2", 'x="; {}', "odd name; {}", "{}", "  {}  ", "\xff=\xfe; {}", "llm_admin=short; {}"],
)
def test_our_cookie_is_found_among_others_of_any_shape(others: str) -> None:
    """Those of other programs on this machine come along."""
    headers = [(b"cookie", others.format("llm_admin=" + "t" * 43).encode("latin-1"))]
    assert cookie_token({"scheme": "http", "headers": headers}) == "t" * 43


async def test_a_page_leads_to_the_login_and_back(browser: httpx.AsyncClient) -> None:
    wanted = "/admin/queue?status=failed&user=jane+smith%26co"
    away = await browser.get(wanted)
    form = await browser.get(away.headers["location"])
    shown = re.search(r'name="next" value="([^"]*)"', form.text)
    assert shown is not None
    back = await log_in(browser, next=shown[1].replace("&amp;", "&"))
    assert (back.status_code, back.headers["location"]) == (303, wanted)
    again = await browser.get(away.headers["location"])
    assert (again.status_code, again.headers["location"]) == (303, wanted), "no second login"


@pytest.mark.parametrize(
    "text",
    [
        "https://evil.example/admin/",
        "//evil.example/admin/",
        "/admin/\\evil.example",
        "/admin//evil.example",
        "/admin/../api/v1/jobs",
        "/admin/queue\r\nSet-Cookie: a=b",
        "/admin/queue\x00",
        "/administrators",
        "/api/v1/jobs",
        "javascript:alert(1)",
        "/admin/" + "x" * 3000,
        "",
        None,
    ],
)
async def test_the_login_leads_to_our_own_pages_alone(browser: httpx.AsyncClient, text: str | None) -> None:
    assert local_path(text) == "/admin/queue"
    answer = await log_in(browser, next=text or "")
    assert (answer.status_code, answer.headers["location"]) == (303, "/admin/queue")


@pytest.mark.parametrize(
    ("path", "is_ours"),
    [
        ("/admin", True),
        ("//Admin/", True),
        ("/./admin/x", True),
        ("/administrator", False),
        ("/api/admin", False),
    ],
)
def test_what_belongs_to_the_pages(path: str, is_ours: bool) -> None:
    assert is_admin(path) == is_ours


# --- what goes out ----------------------------------------------------------------------------------------


async def test_s23_every_answer_carries_the_headers(admin: Browser, settings: Settings) -> None:
    """With and without a session, pages and errors, JSON and redirects; each header once."""
    seen = set()
    for _ in range(2):
        for path in [*admin_paths(settings), "/admin", "/admin/nothing", "/ADMIN"]:
            for method in METHODS:
                for extra in ({}, admin.headers):
                    if path == "/admin/logout" and extra and method == "POST":
                        continue
                    answer = await admin.client.request(method, path, headers=extra)
                    seen.add(answer.status_code)
                    assert answer.status_code < 500, f"{method} {path}: {answer.text}"
                    carried = {name: answer.headers.get_list(name) for name in HEADERS}
                    assert carried == {name: [value] for name, value in HEADERS.items()}, f"{method} {path}"
                    assert "strict-transport-security" not in answer.headers
        admin.client.cookies.clear()
    assert {200, 303, 401, 403, 404, 405} <= seen


async def test_s23_pages_hold_no_inline_script_or_style(admin: Browser) -> None:
    for path in ("/admin/queue", "/admin/nothing"):
        page = (await admin.client.get(path)).text
        assert re.findall(r"<script(?![^>]*\bsrc=)", page) == []
        assert re.findall(r"<style|\sstyle=|\son\w+=|javascript:", page) == []


async def test_s23_static_files_may_be_kept(admin: Browser) -> None:
    page = await admin.client.get("/admin/queue")
    for path in set(re.findall(r'/admin/static/[^"\s]+', page.text)):
        answer = await admin.client.get(path)
        assert answer.status_code == 200
        assert "immutable" in answer.headers["cache-control"]
        assert answer.headers["content-security-policy"] == CSP
        assert answer.headers["x-content-type-options"] == "nosniff"


async def test_s23_over_tls_browsers_are_told_to_stay_there(browser: httpx.AsyncClient) -> None:
    browser.base_url = httpx.URL("https://queue.example.org")
    answer = await browser.get("/admin/queue")
    assert answer.status_code == 303
    assert answer.headers["strict-transport-security"] == "max-age=31536000"


# --- the cookie and the session ---------------------------------------------------------------------------


async def test_s25_the_cookie_over_tls(browser: httpx.AsyncClient) -> None:
    browser.base_url = httpx.URL("https://queue.example.org")
    before = (await browser.get("/admin")).headers["set-cookie"]
    answer = await log_in(browser)
    after = answer.headers["set-cookie"]
    shape = r"__Host-llm_admin=([A-Za-z0-9_-]{43}); Path=/; HttpOnly; SameSite=Strict; Secure"
    tokens = [re.fullmatch(shape, cookie) for cookie in (before, after)]
    assert all(tokens), (before, after)
    assert tokens[0][1] != tokens[1][1]  # type: ignore[index]
    assert (await browser.get("/admin/queue")).status_code == 200


async def test_s25_the_cookie_on_this_machine(browser: httpx.AsyncClient) -> None:
    answer = await log_in(browser)
    shape = r"llm_admin=[A-Za-z0-9_-]{43}; Path=/; HttpOnly; SameSite=Strict"
    assert re.fullmatch(shape, answer.headers["set-cookie"])


@pytest.mark.parametrize(
    "host", ["http://queue.example.org", "http://10.0.0.7:8000", "http://127.0.0.1.evil.example"]
)
async def test_s25_no_cookie_over_an_open_line(browser: httpx.AsyncClient, host: str) -> None:
    browser.base_url = httpx.URL(host)
    answer = await browser.get("/admin")
    assert answer.status_code == 403
    assert "set-cookie" not in answer.headers
    assert "LLM_SERVICE_TRUSTED_PROXIES" in answer.text


@pytest.mark.parametrize("host", ["http://localhost:8000", "http://[::1]:8000", "http://127.0.0.2"])
async def test_s25_this_machine_has_several_names(browser: httpx.AsyncClient, host: str) -> None:
    browser.base_url = httpx.URL(host)
    assert (await browser.get("/admin")).status_code == 200


async def test_s25_a_login_ends_the_session_before_it(browser: httpx.AsyncClient) -> None:
    await log_in(browser)
    first = browser.cookies["llm_admin"]
    # The form is shown to nobody who is logged in; another tab may still have it.
    form = {"password": PASSWORD, "csrf_token": csrf_in((await browser.get("/admin/queue")).text)}
    assert (await browser.post("/admin", data=form)).status_code == 303
    assert browser.cookies["llm_admin"] != first
    assert (await browser.get("/admin/queue")).status_code == 200
    browser.cookies.clear()
    stale = await browser.get("/admin/queue", headers={"Cookie": f"llm_admin={first}"})
    assert stale.status_code == 303


async def test_s25_a_cookie_from_before_the_login_opens_nothing_after_it(browser: httpx.AsyncClient) -> None:
    """Planted by somebody else, it would be a door for two."""
    planted = "p" * 43
    form = await browser.get("/admin", headers={"Cookie": f"llm_admin={planted}"})
    data = {"password": PASSWORD, "csrf_token": csrf_in(form.text)}
    browser.cookies.clear()
    answer = await browser.post("/admin", data=data, headers={"Cookie": f"llm_admin={planted}"})
    assert answer.status_code == 303
    browser.cookies.clear()
    assert (await browser.get("/admin/queue", headers={"Cookie": f"llm_admin={planted}"})).status_code == 303


async def test_s25_the_session_dies_at_logout(admin: Browser, sql: asyncpg.Connection) -> None:
    token = admin.client.cookies["llm_admin"]
    form = {"csrf_token": admin.headers["X-CSRF-Token"]}
    answer = await admin.client.post("/admin/logout", data=form)
    assert (answer.status_code, answer.headers["location"]) == (303, "/admin")
    assert "Max-Age=0" in answer.headers["set-cookie"]
    assert await sql.fetchval("SELECT count(*) FROM llm_admin_sessions") == 0
    kept = await admin.client.get("/admin/queue", headers={"Cookie": f"llm_admin={token}"})
    assert kept.status_code == 303
    acted = await admin.post("/admin/actions", ACTION, Cookie=f"llm_admin={token}")
    assert acted.status_code == 401


async def test_s25_the_session_dies_of_idleness_and_lives_on_use(
    admin: Browser, sql: asyncpg.Connection
) -> None:
    aged = "UPDATE llm_admin_sessions SET last_seen_at = now() - $1::interval, expires_at = now() + interval '12 hours' - $1::interval"
    await sql.execute(aged.replace("$1", "'11 hours 59 minutes'"))
    assert (await admin.client.get("/admin/queue")).status_code == 200
    left = await sql.fetchval(
        "SELECT expires_at - now() > interval '11 hours 59 minutes' FROM llm_admin_sessions"
    )
    assert left, "being used has moved its end"
    await sql.execute(aged.replace("$1", "'12 hours'"))
    assert (await admin.client.get("/admin/queue")).status_code == 303
    assert (await admin.client.get("/admin/queue", headers=FETCH)).status_code == 401


async def test_s25_a_session_is_not_written_at_every_request(admin: Browser, sql: asyncpg.Connection) -> None:
    before = await sql.fetchrow("SELECT xmin::text, * FROM llm_admin_sessions")
    for _ in range(3):
        assert (await admin.client.get("/admin/queue")).status_code == 200
    assert await sql.fetchrow("SELECT xmin::text, * FROM llm_admin_sessions") == before


async def test_s25_the_database_has_no_token_and_another_password_ends_all(
    admin: Browser, sql: asyncpg.Connection, environment: dict[str, str]
) -> None:
    token = admin.client.cookies["llm_admin"]
    rows = await sql.fetch("SELECT * FROM llm_admin_sessions")
    assert len(rows) == 1
    assert token not in repr(rows)
    assert len(rows[0]["token_hash"]) == 32
    other = load_settings(environment | {"LLM_SERVICE_ADMIN_PASSWORD": "another-password-1"})
    async with serving(other) as later:
        later.base_url = httpx.URL(BASE)
        assert (await later.get("/admin/queue", headers={"Cookie": f"llm_admin={token}"})).status_code == 303
    assert (await admin.client.get("/admin/queue")).status_code == 200


# --- forgery ----------------------------------------------------------------------------------------------


FOREIGN: list[dict[str, str]] = [
    {"Origin": "https://evil.example"},
    {"Origin": "http://127.0.0.1:8001"},
    {"Origin": "https://127.0.0.1:8000"},
    {"Origin": BASE + ".evil.example"},
    {"Origin": "null"},
    {"Origin": "null", "Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "nonsense"},
    {"Origin": "https://evil.example", "Sec-Fetch-Site": "same-origin"},
]


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
async def test_s26_no_post_from_another_site(
    admin: Browser, sql: asyncpg.Connection, headers: dict[str, str]
) -> None:
    """With the right cookie and the right token."""
    token = {"X-CSRF-Token": admin.headers["X-CSRF-Token"], "X-Requested-With": "fetch"}
    for path in ("/admin", "/admin/logout", "/admin/actions", "/admin/actions/preview", "/admin/nothing"):
        answer = await admin.client.post(path, json=ACTION, headers=token | headers)
        assert answer.status_code == 403, path
        assert answer.json()["detail"]["error"] == "RequestRefused"
    assert await sql.fetchval("SELECT count(*) FROM llm_admin_audit") == 0
    assert (await admin.client.get("/admin/queue")).status_code == 200, "still logged in"


async def test_s26_no_post_without_the_token_of_this_session(
    admin: Browser, settings: Settings, sql: asyncpg.Connection
) -> None:
    async with serving(settings) as other:
        other.base_url = httpx.URL(BASE)
        await log_in(other)
        foreign = csrf_in((await other.get("/admin/queue")).text)
        assert foreign != admin.headers["X-CSRF-Token"]
    right = admin.headers["X-CSRF-Token"]
    forged = [None, "", "0" * 64, foreign, right[:-1], right + "0", right.upper() + " ", "ü" * 64]
    for token in forged:
        headers = {name.encode(): value.encode() for name, value in FETCH.items()}
        if token is not None:
            headers[b"X-CSRF-Token"] = token.encode("latin-1")
        for path in ("/admin/actions", "/admin/actions/preview", "/admin/logout", "/admin"):
            answer = await admin.client.post(path, json=ACTION, headers=headers)
            assert answer.status_code == 403, (path, token)
        form = {"action": "cancel", "job_id": NOBODY} | ({} if token is None else {"csrf_token": token})
        answer = await admin.client.post("/admin/actions", data=form)
        assert answer.status_code == 403, token
    twice = "action=cancel&csrf_token=" + right + "&csrf_token=" + right
    kind = {"Content-Type": "application/x-www-form-urlencoded"}
    assert (await admin.client.post("/admin/actions", content=twice, headers=kind)).status_code == 403
    assert await sql.fetchval("SELECT count(*) FROM llm_admin_audit") == 0


@pytest.mark.parametrize("kind", ["text/plain", "multipart/form-data; boundary=x", "", "application/json"])
async def test_s26_no_kind_of_body_gets_past_the_token(admin: Browser, kind: str) -> None:
    """What a foreign form can send without asking first."""
    body = (
        '{"action": "cancel", "job_ids": ["'
        + NOBODY
        + '"], "csrf_token": "'
        + admin.headers["X-CSRF-Token"]
        + '"}'
    )
    answer = await admin.client.post("/admin/actions", content=body, headers={"Content-Type": kind})
    assert answer.status_code == 403


async def test_s26_other_methods_are_held_to_it_too(admin: Browser) -> None:
    for method in ("PUT", "PATCH", "DELETE"):
        assert (await admin.client.request(method, "/admin/queue")).status_code == 403
        allowed = await admin.client.request(method, "/admin/queue", headers=admin.headers)
        assert allowed.status_code == 405


async def test_s26_our_own_forms_pass_as_browsers_send_them(admin: Browser) -> None:
    """Pages that send no referrer post with `Origin: null`, and say in Sec-Fetch-Site that they are ours."""
    form = {"action": "cancel", "job_id": NOBODY, "csrf_token": admin.headers["X-CSRF-Token"]}
    for headers in (
        {"Origin": "null", "Sec-Fetch-Site": "same-origin"},
        {"Origin": BASE, "Sec-Fetch-Site": "same-origin"},
        {"Origin": BASE},
        {},
    ):
        answer = await admin.client.post("/admin/actions", data=form, headers=headers)
        assert answer.status_code == 303, headers


async def test_s26_a_form_that_is_too_large_is_not_read_on(admin: Browser) -> None:
    answer = await admin.client.post("/admin/actions", data={"x": "y" * 70_000}, headers=FETCH)
    assert answer.status_code == 413


async def test_s26_a_form_of_many_fields_is_not_read_on(browser: httpx.AsyncClient) -> None:
    """A stranger's; with the token of the login form, which is to be had."""
    token = csrf_in((await browser.get("/admin")).text)
    fields = {f"x{number}": "" for number in range(20)}
    answer = await browser.post("/admin", data={"csrf_token": token, "password": PASSWORD, **fields})
    assert answer.status_code == 413
    few = dict.fromkeys(list(fields)[:18], "")
    assert (
        await browser.post("/admin", data={"csrf_token": token, "password": PASSWORD, **few})
    ).status_code == 303


async def test_s26_no_form_of_a_stranger_is_remembered(browser: httpx.AsyncClient) -> None:
    token = csrf_in((await browser.get("/admin")).text)
    before = parse_url_encoded_form_data.cache_info().currsize
    answer = await browser.post("/admin", data={"csrf_token": token, "password": "wrong", "x": "y" * 60_000})
    assert answer.status_code == 401
    assert parse_url_encoded_form_data.cache_info().currsize == before


async def test_s26_a_login_needs_the_token_of_its_form(
    browser: httpx.AsyncClient, sql: asyncpg.Connection
) -> None:
    await browser.get("/admin")
    for data in ({"password": PASSWORD}, {"password": PASSWORD, "csrf_token": "0" * 64}):
        assert (await browser.post("/admin", data=data)).status_code == 403
    token = csrf_in((await browser.get("/admin")).text)
    browser.cookies.clear()
    assert (await browser.post("/admin", data={"password": PASSWORD, "csrf_token": token})).status_code == 403
    assert await sql.fetchval("SELECT count(*) FROM llm_admin_sessions") == 0


# --- the setting ------------------------------------------------------------------------------------------


async def test_s27_without_a_password_there_are_no_pages(environment: dict[str, str]) -> None:
    settings = load_settings(environment)
    async with serving(settings) as client:
        client.base_url = httpx.URL(BASE)
        for path in [*admin_paths(settings), "/admin", "/admin/", "/Admin/nothing"]:
            for method in METHODS:
                answer = await client.request(method, path)
                assert answer.status_code == 404, f"{method} {path}"
                assert method == "HEAD" or answer.json()["detail"]["error"] == "RouteNotFound"
                assert "set-cookie" not in answer.headers
        assert (await client.get("/health/live")).status_code == 200


@pytest.mark.parametrize("password", ["x", "elevenchars"])
def test_s27_a_short_password_is_refused_at_the_start(environment: dict[str, str], password: str) -> None:
    with pytest.raises(SettingsInvalid) as refused:
        load_settings(environment | {"LLM_SERVICE_ADMIN_PASSWORD": password})
    assert refused.value.message == "LLM_SERVICE_ADMIN_PASSWORD needs at least 12 characters."


@pytest.mark.parametrize("text", ["proxy.internal", "10.0.0.7,evil", "10.0.0.1/8", "*"])
def test_a_proxy_is_named_by_its_address(environment: dict[str, str], text: str) -> None:
    with pytest.raises(SettingsInvalid, match="LLM_SERVICE_TRUSTED_PROXIES: "):
        load_settings(environment | {"LLM_SERVICE_TRUSTED_PROXIES": text})


async def test_a_database_that_is_away_is_said(settings: Settings) -> None:
    import msgspec

    away: Any = msgspec.structs.replace(
        settings, database_url="postgresql+asyncpg://nobody@127.0.0.1:1/nowhere"
    )
    async with serving(away) as client:
        client.base_url = httpx.URL(BASE)
        cookie = {"Cookie": "llm_admin=" + "x" * 43}
        page = await client.get("/admin/queue", headers=cookie)
        assert (page.status_code, page.headers["retry-after"]) == (503, "2")
        script = await client.get("/admin/queue", headers=cookie | FETCH)
        assert script.json()["detail"]["error"] == "ServiceUnavailable"
