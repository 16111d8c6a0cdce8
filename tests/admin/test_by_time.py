"""The list by the time of the end: what failed today is there, whenever it was created."""

import re
from datetime import datetime, timedelta
from typing import Any

import asyncpg
import pytest
from tests.admin.conftest import FETCH, Browser
from tests.admin.test_actions import by_filter, preview
from tests.admin.test_page_html import shown

JOBS = "llm_workflow_jobs"
ADD = f"""
INSERT INTO {JOBS} (id, workflow_name, input_data, status, username, error_code, created_at, completed_at)
VALUES (gen_random_uuid(), 'completion', '{{"prompt": "x"}}', $1, $2, $3, $4, $5) RETURNING id::text
"""


@pytest.fixture
async def jobs(sql: asyncpg.Connection) -> dict[str, str]:
    """Around this midnight: created and ended on either side of it, and some that have not ended."""
    midnight: datetime = await sql.fetchval("SELECT date_trunc('day', now())")
    now: datetime = await sql.fetchval("SELECT now()")
    before, long_ago = midnight - timedelta(hours=1), midnight - timedelta(days=20)
    made = {
        "yesterday, failed today": ("failed", before, midnight),
        "yesterday, failed yesterday": ("failed", before, midnight - timedelta(microseconds=1)),
        "long ago, failed now": ("failed", long_ago, now),
        "today, failed today": ("failed", midnight, midnight + (now - midnight) / 2),
        "today, completed today": ("completed", midnight, now),
        "today, pending": ("pending", midnight, None),
        "today, running": ("processing", midnight, None),
    }
    return {
        what: await sql.fetchval(
            ADD, status, "jane", "ModelTimeout" if status == "failed" else None, created_at, completed_at
        )
        for what, (status, created_at, completed_at) in made.items()
    }


def listed(page: str) -> list[str]:
    return re.findall(r'<tr role="row" id="job-([0-9a-f-]{36})"', page)


def counts(page: str) -> dict[str, str]:
    return dict(re.findall(r'class="chip-label">(\w+)</span>\s*<span class="chip-count">([\d,]+)', page))


async def test_todays_failures_are_those_that_failed_today(admin: Browser, jobs: dict[str, str]) -> None:
    by_end = (await admin.client.get("/admin/queue?status=failed&limit=Today&time=finished")).text
    assert listed(by_end) == [
        jobs[what] for what in ("long ago, failed now", "today, failed today", "yesterday, failed today")
    ]
    assert "Showing <b>3</b> of <b>3</b>" in by_end
    by_start = (await admin.client.get("/admin/queue?status=failed&limit=Today")).text
    assert listed(by_start) == [jobs["today, failed today"]]


async def test_counts_chart_and_suggestions_go_by_the_same_time(admin: Browser, jobs: dict[str, str]) -> None:
    page = (await admin.client.get("/admin/queue?limit=Today&time=finished")).text
    assert counts(page) == {
        "All": "4",
        "Running": "0",
        "Completed": "1",
        "Failed": "3",
        "Pending": "0",
        "Cancelled": "0",
    }
    chart = (await admin.client.get("/admin/insight?limit=Today&time=finished&part=all", headers=FETCH)).text
    assert "Jobs finished by hour" in chart
    bars = re.findall(r": (\d+) jobs, (\d+) failed\"", chart)
    assert (sum(int(n) for n, _ in bars), sum(int(n) for _, n in bars)) == (4, 3)
    assert all("time=finished" in link for link in re.findall(r'<a href="([^"]+)" aria-label', chart))
    assert ">3 of 4<" in chart, "the failures by action are counted so too"
    suggested = await admin.client.get(
        "/admin/suggestions?column=user&filter=limit%3DToday%26time%3Dfinished%26status%3Dfailed"
    )
    assert suggested.json() == [{"value": "jane", "count": 3}]


async def test_a_bar_of_the_chart_leads_to_the_jobs_it_counts(admin: Browser, jobs: dict[str, str]) -> None:
    chart = (await admin.client.get("/admin/insight?limit=Today&time=finished", headers=FETCH)).text
    found = re.findall(r'<a href="([^"]+)" aria-label="[^"]*: (\d+) jobs', chart)
    assert sum(int(number) for _, number in found) == 4
    for link, number in found:
        page = (await admin.client.get(link.replace("&amp;", "&"))).text
        assert shown(page) == int(number), link


async def test_the_newest_25_are_those_that_ended_last(admin: Browser, jobs: dict[str, str]) -> None:
    page = (await admin.client.get("/admin/queue?time=finished")).text
    assert listed(page)[-1] == jobs["yesterday, failed yesterday"]
    assert set(listed(page)) == {job_id for what, job_id in jobs.items() if "ed " in what}
    assert "last finished first" in page
    assert re.search(r'aria-sort="descending">Finished</th>', page)


async def test_unfinished_jobs_are_left_out_and_the_page_says_why(
    admin: Browser, jobs: dict[str, str]
) -> None:
    page = (await admin.client.get("/admin/queue?status=running&time=finished")).text
    assert listed(page) == []
    assert "Jobs that are not over have no time of their end." in page


async def test_load_more_reaches_every_job_once_also_where_many_ended_together(
    admin: Browser, sql: asyncpg.Connection
) -> None:
    """Ends repeat, and their order is not that of creation."""
    await sql.execute(
        f"INSERT INTO {JOBS} (id, workflow_name, input_data, status, created_at, completed_at) "
        "SELECT gen_random_uuid(), 'w', '{}', 'completed', now() - n * interval '1 s', "
        "       now() - ((n * 7919) % 5) * interval '1 minute' FROM generate_series(1, 180) AS n"
    )
    expected = [
        str(row["id"])
        for row in await sql.fetch(f"SELECT id FROM {JOBS} ORDER BY completed_at DESC, id DESC")
    ]
    url: str | None = "/admin/queue?limit=7+Days&time=finished"
    seen: list[str] = []
    while url is not None:
        page = (await admin.client.get(url)).text
        seen += listed(page)
        more = re.search(r'id="more" href="([^"]+)"', page)
        url = more[1].replace("&amp;", "&") if more else None
    assert seen == expected


async def test_a_place_in_the_one_list_is_none_in_the_other(admin: Browser, sql: asyncpg.Connection) -> None:
    await sql.execute(
        f"INSERT INTO {JOBS} (id, workflow_name, input_data, status, completed_at) "
        "SELECT gen_random_uuid(), 'w', '{}', 'completed', now() FROM generate_series(1, 60)"
    )
    first = (await admin.client.get("/admin/queue?limit=Today&time=finished")).text
    cursor = re.search(r"cursor=([\w-]+)", first)
    assert cursor is not None
    page = await admin.client.get(f"/admin/queue?limit=Today&cursor={cursor[1]}")
    assert "The place in the list belonged to other filters" in page.text


async def test_an_action_on_all_that_match_goes_by_the_same_time(
    admin: Browser, sql: asyncpg.Connection, jobs: dict[str, str]
) -> None:
    text = "status=failed&limit=Today&time=finished"
    asked: dict[str, Any] = await preview(admin, action="retry", filter=text)
    assert (asked["count"], asked["words"]) == (3, "Retry 3 jobs: failed jobs, finished since 00:00 UTC")
    assert asked["sample"][0]["job_id"] == jobs["long ago, failed now"]
    await sql.execute(
        ADD, "failed", "joe", None, datetime.fromisoformat(asked["until"]), await sql.fetchval("SELECT now()")
    )
    assert (await by_filter(admin, "retry", text, asked)).json()["done"] == 3, "as of the preview"
    retried = await sql.fetch(f"SELECT retried_from::text FROM {JOBS} WHERE retried_from IS NOT NULL")
    assert {row[0] for row in retried} == {
        jobs[what] for what in ("long ago, failed now", "today, failed today", "yesterday, failed today")
    }
    none = await preview(admin, action="cancel", filter="time=finished")
    assert none["count"] == 0


async def test_a_job_says_how_many_failed_so_today(admin: Browser, jobs: dict[str, str]) -> None:
    page = (await admin.client.get(f"/admin/queue/{jobs['today, failed today']}")).text
    link = re.search(r'<a href="([^"]+)">2 other jobs failed with this code today', page)
    assert link is not None
    assert shown((await admin.client.get(link[1].replace("&amp;", "&"))).text) == 3


async def test_the_jobs_api_knows_no_such_choice(admin: Browser, jobs: dict[str, str]) -> None:
    """Its windows stay on created_at, and it takes no further word."""
    from tests.conftest import AUTH

    asked = {"limit_results": "Today", "status": "failed"}
    plain = await admin.client.get("/api/v1/jobs", params=asked, headers=AUTH)
    assert [job["job_id"] for job in plain.json()["jobs"]] == [jobs["today, failed today"]]
    more = await admin.client.get("/api/v1/jobs", params=asked | {"time": "finished"}, headers=AUTH)
    assert more.status_code == 422 or more.json()["jobs"] == plain.json()["jobs"]
