"""The pages without a browser: what they hold, their headers, and how many statements they take."""

import re

import asyncpg
import httpx
import pytest
from tests.admin.conftest import Browser
from tests.statements import statements_sent

INSERT = """
INSERT INTO llm_workflow_jobs (id, workflow_name, username, action, status, input_data, result, error_code, error_message, created_at)
SELECT CAST('01981c5e-0000-7000-8000-' || lpad(to_hex(n), 12, '0') AS uuid), 'completion', 'user_' || n % 3, 'action ' || n % 2,
       CASE WHEN n % 5 = 0 THEN 'failed' ELSE 'completed' END, '{"prompt": "payload of the input"}', '{"n": 9007199254740993}',
       CASE WHEN n % 5 = 0 THEN 'ModelTimeout' END, CASE WHEN n % 5 = 0 THEN 'Too slow.' END, now() - n * interval '1 second'
  FROM generate_series(1, $1) AS n
"""
JOB = "01981c5e-0000-7000-8000-000000000005"


def shown(html: str) -> int:
    return len(re.findall(r'<tr role="row" id="job-', html))


@pytest.fixture
async def queue_of_300(sql: asyncpg.Connection, admin: Browser) -> Browser:
    await sql.execute(INSERT, 300)
    return admin


async def test_the_list_shows_25_of_all_and_reads_no_payload(queue_of_300: Browser) -> None:
    with statements_sent() as seen:
        page = await queue_of_300.client.get("/admin/queue")
    assert page.status_code == 200
    assert shown(page.text) == 25
    assert "Showing <b>25</b> of <b>300</b>" in page.text
    assert "payload of the input" not in page.text
    assert not [statement for statement in seen if "input_data" in statement]


async def test_the_number_of_statements_does_not_grow_with_the_rows(queue_of_300: Browser) -> None:
    await queue_of_300.client.get("/admin/queue")  # clocks and settings of new connections
    numbers = {}
    for limit, rows in (("25", 25), ("200", 200), ("Today", None), ("25&user=user_1&status=failed", 20)):
        with statements_sent() as seen:
            page = await queue_of_300.client.get(f"/admin/queue?limit={limit}")
        assert rows is None or shown(page.text) == rows
        numbers[limit] = len(seen)
    assert len(set(numbers.values())) == 1, numbers


async def test_polling_without_news_is_a_304(queue_of_300: Browser, sql: asyncpg.Connection) -> None:
    fetch = {"X-Requested-With": "fetch"}
    first = await queue_of_300.client.get("/admin/queue/rows", headers=fetch)
    again = await queue_of_300.client.get(
        "/admin/queue/rows", headers=fetch | {"If-None-Match": first.headers["etag"]}
    )
    assert (again.status_code, again.content) == (304, b"")
    await sql.execute("UPDATE llm_workflow_jobs SET status = 'cancelled' WHERE id = $1::uuid", JOB)
    changed = await queue_of_300.client.get(
        "/admin/queue/rows", headers=fetch | {"If-None-Match": first.headers["etag"]}
    )
    assert changed.status_code == 200


async def test_every_row_is_reached_by_load_more(queue_of_300: Browser) -> None:
    url: str | None = "/admin/queue?limit=7+Days"
    seen: list[str] = []
    while url is not None:
        page = (await queue_of_300.client.get(url)).text
        seen += re.findall(r'id="job-([0-9a-f-]{36})"', page)
        more = re.search(r'id="more" href="([^"]+)"', page)
        url = more[1].replace("&amp;", "&") if more else None
    assert len(seen) == len(set(seen)) == 300


@pytest.mark.parametrize(
    "path",
    [
        "/admin/queue",
        f"/admin/queue/{JOB}",
        "/admin/queue/nothing",
        "/admin/nowhere",
        "/admin/insight?part=all",
    ],
)
async def test_pages_hold_no_script_or_style_of_their_own(queue_of_300: Browser, path: str) -> None:
    page = await queue_of_300.client.get(path)
    assert "default-src 'none'; script-src 'self'" in page.headers["content-security-policy"]
    assert len(page.headers.get_list("content-security-policy")) == 1
    assert page.headers["cache-control"] == "no-store"
    assert not re.search(
        r"<style|\sstyle=|\son[a-z]+=|<script(?![^>]*\ssrc=)|javascript:|https?://(?!receiver)",
        page.text.split("<pre")[0],
    )


async def test_a_job_page_shows_numbers_as_they_are_and_the_download_all(queue_of_300: Browser) -> None:
    page = await queue_of_300.client.get(f"/admin/queue/{JOB}")
    assert "9007199254740993" in page.text
    assert "Why it failed" in page.text
    download = await queue_of_300.client.get(f"/admin/queue/{JOB}/input.json")
    assert download.json() == {"prompt": "payload of the input"}
    assert download.headers["content-disposition"] == f'attachment; filename="{JOB}-input.json"'


async def test_the_page_says_who_signs_the_webhook_and_never_shows_the_secret(
    queue_of_300: Browser, sql: asyncpg.Connection
) -> None:
    await sql.execute(
        "UPDATE llm_workflow_jobs SET webhook_url = 'https://receiver.example.org' WHERE id = $1::uuid", JOB
    )
    assert "not signed" in (await queue_of_300.client.get(f"/admin/queue/{JOB}")).text
    await sql.execute(
        "UPDATE llm_workflow_jobs SET webhook_secret = 'canary-of-a-secret' WHERE id = $1::uuid", JOB
    )
    page = (await queue_of_300.client.get(f"/admin/queue/{JOB}")).text
    assert "signed with the job&#39;s own secret" in page
    assert "canary" not in page


async def test_a_failed_job_counts_the_others_of_today_with_its_code(
    admin: Browser, sql: asyncpg.Connection
) -> None:
    await sql.execute(INSERT, 20)
    await sql.execute("UPDATE llm_workflow_jobs SET created_at = now(), completed_at = now()")
    assert "3 other jobs failed with this code today" in (await admin.client.get(f"/admin/queue/{JOB}")).text
    await sql.execute("UPDATE llm_workflow_jobs SET status = 'completed' WHERE id <> $1::uuid", JOB)
    assert "failed with this code today" not in (await admin.client.get(f"/admin/queue/{JOB}")).text


async def test_a_job_that_is_not_there_has_a_page_of_its_own(admin: Browser) -> None:
    page = await admin.client.get("/admin/queue/not-a-job?status=failed")
    assert page.status_code == 404
    assert "Job not found" in page.text
    assert 'href="/admin/queue?status=failed"' in page.text


async def test_a_job_id_in_the_search_leads_to_the_job(admin: Browser) -> None:
    answer = await admin.client.get(f"/admin/queue?q={JOB}&status=failed")
    assert (answer.status_code, answer.headers["location"]) == (303, f"/admin/queue/{JOB}?status=failed")


async def test_a_cursor_of_other_filters_is_said_and_the_list_begins_anew(queue_of_300: Browser) -> None:
    page = await queue_of_300.client.get("/admin/queue?limit=7+Days&cursor=nonsense")
    assert "this is its beginning" in page.text
    assert shown(page.text) == 50


async def test_static_files_are_kept_for_ever_under_their_content(admin: Browser) -> None:
    page = await admin.client.get("/admin/queue")
    for address in set(re.findall(r'"(/admin/static/[^"]+)"', page.text)):
        file = await admin.client.get(address)
        assert file.status_code == 200, address
        assert "immutable" in file.headers["cache-control"]
    assert (await admin.client.get("/admin/static/000000000000/base.css")).status_code == 404


async def test_suggestions_say_how_often_each_value_is_there(queue_of_300: Browser) -> None:
    found = await queue_of_300.client.get("/admin/suggestions?column=action&filter=status%3Dfailed")
    assert {entry["value"]: entry["count"] for entry in found.json()} == {"action 0": 30, "action 1": 30}
    assert (
        await queue_of_300.client.get(
            "/admin/suggestions?column=password", headers={"X-Requested-With": "fetch"}
        )
    ).status_code == 422


async def test_a_page_refused_at_the_door_is_a_page(browser: httpx.AsyncClient) -> None:
    page = await browser.post("/admin", data={"password": "x", "csrf_token": "wrong"})
    assert page.status_code == 403
    assert page.headers["content-type"].startswith("text/html")
    assert "This was refused" in page.text
    assert "out of date" in page.text
