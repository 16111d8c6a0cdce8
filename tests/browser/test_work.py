"""What an admin does on the page: find who it was, act, and not be disturbed by what changes meanwhile."""

import re
from urllib.parse import parse_qs, quote, urlsplit

import pytest
from playwright.sync_api import Page, expect
from tests.browser.conftest import READER_PASSWORD, Site, Visitor
from tests.browser.seed import RUNNING, STORY
from tests.browser.test_looks import settle

INSERT = """
INSERT INTO llm_workflow_jobs (id, workflow_name, username, action, status, input_data, created_at, completed_at, error_code)
VALUES (gen_random_uuid(), 'completion', $1, $2, $3, '{}', now(), now(), $4) RETURNING id::text
"""
HOSTILE = [
    "<script>alert(1)</script>",
    "</script><img src=x onerror=alert(1)>",
    "{{7*7}}",
    "javascript:alert(1)",
    "a\u202eb\u200bc",
    "\x1b[31mred",
    "__proto__",
    "😀" * 60,
]


def rows(page: Page) -> list[str]:
    found: list[str] = page.locator("#jobs tbody tr").evaluate_all("all => all.map(row => row.dataset.id)")
    return found


def after_looks(page: Page) -> None:
    """Come back when a look that the page has begun is over: looks take turns by this lock."""
    page.evaluate("() => navigator.locks.request(`llm-queue ${location.search.slice(1)}`, () => null)")


def test_who_was_generating_contacts_takes_two_choices(month: Site, visitor: Visitor) -> None:
    page = visitor.open(month, "/admin/queue")
    page.get_by_role("link", name=re.compile("^Failed")).click()
    page.locator("#f-action").focus()
    expect(page.locator("#l-action option[value='generate contacts']")).to_have_count(1)
    page.locator("#f-action").fill("generate contacts")
    page.keyboard.press("Enter")
    page.wait_for_url("**action=generate+contacts")
    first = page.locator("#jobs tbody tr").first
    assert "jane_smith" in first.inner_text()
    assert "ModelTimeout" in first.inner_text()
    assert parse_qs(urlsplit(page.url).query) == {"status": ["failed"], "action": ["generate contacts"]}
    before = rows(page)
    page.reload()
    assert rows(page) == before


def test_the_story_by_keyboard_alone(month: Site, visitor: Visitor) -> None:
    page = visitor.open(month, "/admin/queue?status=failed")
    page.keyboard.press("/")
    expect(page.locator("#f-action")).to_be_focused()
    page.keyboard.type("generate contacts")
    page.keyboard.press("Enter")
    page.wait_for_url("**action=generate+contacts**")
    page.keyboard.press("j")
    expect(page.locator("#jobs .title").first).to_be_focused()
    page.keyboard.press("Enter")
    page.wait_for_selector("#job")
    expect(page.get_by_role("heading", name="Why it failed")).to_be_visible()
    page.keyboard.press("j")
    page.wait_for_function("id => document.getElementById('job').dataset.id !== id", arg=str(STORY))
    page.keyboard.press("u")
    page.wait_for_selector("#jobs")
    assert "action=generate+contacts" in page.url
    assert "status=failed" in page.url


HIDDEN = """() => {
    const element = document.activeElement, box = element.getBoundingClientRect();
    if (element === document.body) return null;
    const isMarked = getComputedStyle(element).outlineStyle !== 'none' || element.matches('.bars a, .choice input, #main');
    const top = document.elementFromPoint(box.x + Math.min(box.width, 40) / 2, box.y + Math.min(box.height, 20) / 2);
    const isOnTop = element.contains(top) || top?.contains(element) || element.closest('label')?.contains(top);
    return isMarked && isOnTop ? null : element.outerHTML.slice(0, 120);
}"""


@pytest.mark.parametrize("path", ["/admin/queue?status=failed", f"/admin/queue/{STORY}"])
def test_what_has_the_focus_is_seen(month: Site, visitor: Visitor, path: str) -> None:
    page = visitor.open(month, path, height=600)
    settle(page)
    hidden = []
    for key in ["Tab"] * 60 + ["Shift+Tab"] * 58:
        page.keyboard.press(key)
        hidden.append(page.evaluate(HIDDEN))
    assert [element for element in hidden if element] == []


def test_every_filter_survives_a_reload(month: Site, visitor: Visitor) -> None:
    wanted = {
        "status": "failed",
        "limit": "30 Days",
        "action": "generate contacts",
        "user": "jane_smith",
        "workflow": "emergency_contacts",
        "error": "ModelTimeout",
    }
    page = visitor.open(month, "/admin/queue")
    for name in ("status", "limit"):
        page.locator(f"#f-{name}").select_option(wanted[name])
        page.wait_for_url(f"**{name}=**")
    for name in ("action", "user", "workflow", "error"):
        page.locator(f"#f-{name}").fill(wanted[name])
        page.keyboard.press("Enter")
        page.wait_for_url(f"**{name}=**")
    before = rows(page)
    assert before
    page.reload()
    assert {name: page.locator(f"#f-{name}").input_value() for name in wanted} == wanted
    assert rows(page) == before
    page.locator("#pick-all").check()
    page.locator("#selection [data-action=retry]").click()
    expect(page.locator("#bulk-title")).to_contain_text(f"{len(before)} job")


def test_single_keys_can_be_switched_off(month: Site, visitor: Visitor) -> None:
    page = visitor.open(month, "/admin/queue")
    page.keyboard.press("?")
    page.locator("#keys-on").uncheck()
    page.keyboard.press("Escape")
    page.locator("#main").focus()
    page.keyboard.press("j")
    expect(page.locator("#main")).to_be_focused()


@pytest.mark.parametrize(
    ("limit", "since"),
    [
        ("25", None),
        ("200", None),
        ("Today", "date_trunc('day', now())"),
        ("7 Days", "now() - interval '168 hours'"),
    ],
)
@pytest.mark.parametrize("status", ["all", "failed", "running"])
def test_what_is_shown_is_what_sql_counts(
    month: Site, visitor: Visitor, limit: str, since: str | None, status: str
) -> None:
    page = visitor.open(month, "/admin/queue")
    page.locator("#f-status").select_option(status)
    page.wait_for_url(re.compile("status=" + status) if status != "all" else re.compile("queue"))
    page.locator("#f-limit").select_option(limit)
    page.wait_for_url(
        re.compile("limit=" + limit.replace(" ", r"\+")) if limit != "25" else re.compile("queue")
    )
    conditions = {
        "all": "true",
        "failed": "status = 'failed'",
        "running": "status IN ('pending', 'processing')",
    }[status]
    wanted = month.sql(
        f"SELECT count(*) FROM llm_workflow_jobs WHERE {conditions} AND created_at >= {since or 'to_timestamp(0)'}"
    )[0][0]
    most = int(limit) if limit.isdigit() else 50
    shown = page.locator(".showing b").all_inner_texts()
    assert shown == [f"{min(most, wanted):,}", f"{wanted:,}"]
    assert len(rows(page)) == min(most, wanted)


def test_back_and_forward_bring_the_filters_back(month: Site, visitor: Visitor) -> None:
    page = visitor.open(month, "/admin/queue?limit=7+Days")
    page.locator("#f-status").select_option("failed")
    page.wait_for_url("**status=failed**")
    failed = rows(page)
    page.go_back()
    expect(page.locator("#f-status")).to_have_value("all")
    page.go_forward()
    expect(page.locator("#f-status")).to_have_value("failed")
    assert rows(page) == failed


def test_load_more_brings_the_next_rows_once(month: Site, visitor: Visitor) -> None:
    page = visitor.open(month, "/admin/queue?limit=30+Days&status=completed")
    page.locator("#more").click()
    expect(page.locator("#jobs tbody tr")).to_have_count(100)
    assert len(set(rows(page))) == 100
    expect(page.locator(".showing b").first).to_have_text("100")


def test_a_new_job_comes_by_itself_at_the_top_and_waits_further_down(month: Site, visitor: Visitor) -> None:
    page = visitor.open(month, "/admin/queue?limit=Today&user=newcomer&status=completed")
    first = month.sql(INSERT, "newcomer", "arrive", "completed", None)[0][0]
    page.locator("#refresh").click()
    expect(page.locator(f"#job-{first}")).to_be_visible()
    for _ in range(40):
        month.sql(INSERT, "newcomer", "arrive", "completed", None)
    page.locator("#refresh").click()
    expect(page.locator("#jobs tbody tr")).to_have_count(41)
    page.evaluate("scrollTo(0, 600)")
    later = month.sql(INSERT, "newcomer", "arrive", "completed", None)[0][0]
    expect(page.locator("#new-jobs")).to_have_text("1 new job", timeout=15_000)
    assert page.locator(f"#job-{later}").count() == 0
    page.locator("#new-jobs").click()
    expect(page.locator(f"#job-{later}")).to_be_visible()


def test_nothing_moves_while_a_row_is_selected(month: Site, visitor: Visitor) -> None:
    page = visitor.open(month, "/admin/queue?limit=Today")
    page.clock.install()
    page.reload()
    settle(page)
    page.locator("#jobs tbody .pick input").first.check()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if "/rows" in request.url else None)
    page.clock.run_for(30_000)
    after_looks(page)
    assert asked == []
    page.locator("#unselect").click()
    with page.expect_request("**/admin/queue/rows**"):
        page.clock.run_for(12_000)


@pytest.mark.parametrize("menu", ["View settings", "About limiting the results"])
def test_nothing_moves_while_a_menu_is_open(month: Site, visitor: Visitor, menu: str) -> None:
    page = visitor.open(month, "/admin/queue")
    page.clock.install()
    page.reload()
    settle(page)
    page.get_by_role("button", name=menu).click()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if "/rows" in request.url else None)
    page.clock.run_for(30_000)
    after_looks(page)
    assert asked == []
    page.keyboard.press("Escape")
    with page.expect_request("**/admin/queue/rows**"):
        page.clock.run_for(12_000)


def test_a_refresh_brings_news_and_keeps_the_selection_and_the_focus(month: Site, visitor: Visitor) -> None:
    job_id = month.sql(INSERT, "chooser", "choose", "pending", None)[0][0]
    page = visitor.open(month, "/admin/queue?user=chooser")
    box = page.locator(f"#job-{job_id} .pick input")
    box.check()
    month.sql(
        "UPDATE llm_workflow_jobs SET status = 'failed', completed_at = now() WHERE id = $1::uuid", job_id
    )
    page.keyboard.press("r")
    expect(page.locator(f"#job-{job_id} .state")).to_have_text("Failed")
    expect(box).to_be_checked()
    expect(box).to_be_focused()
    expect(page.locator("#selected-count")).to_have_text("1 selected")


def test_a_hidden_tab_asks_nothing(month: Site, visitor: Visitor) -> None:
    page = visitor.open(month, "/admin/queue")
    page.clock.install()
    page.reload()
    settle(page)
    page.evaluate("""() => {
        Object.defineProperty(document, 'hidden', {value: true, configurable: true});
        document.dispatchEvent(new Event('visibilitychange'));
    }""")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.clock.run_for(60_000)
    after_looks(page)
    assert asked == []


def test_a_retry_from_a_selection_says_what_it_does_and_keeps_the_filters(
    month: Site, visitor: Visitor
) -> None:
    page = visitor.open(month, "/admin/queue?status=failed&action=generate+contacts&limit=30+Days")
    before = page.url
    box = page.locator("#jobs tbody .pick input").nth(25)
    box.check()
    scrolled = page.evaluate("scrollY")
    assert scrolled > 300
    page.locator("#selection [data-action=retry]").click()
    expect(page.locator("#bulk-title")).to_contain_text("1 job")
    expect(page.locator("#bulk-body li")).to_have_count(1)
    counted = month.sql("SELECT count(*) FROM llm_workflow_jobs WHERE retried_from IS NOT NULL")[0][0]
    page.locator("#bulk-yes").click()
    expect(page.locator("#bulk")).to_be_hidden()
    assert (
        month.sql("SELECT count(*) FROM llm_workflow_jobs WHERE retried_from IS NOT NULL")[0][0]
        == counted + 1
    )
    assert page.url == before
    expect(page.locator("#selection")).to_be_hidden()
    assert abs(page.evaluate("scrollY") - scrolled) < 80
    assert page.evaluate("document.activeElement !== document.body"), "the focus was lost"


def test_all_that_match_repeats_the_filter_and_wants_the_count_typed(month: Site, visitor: Visitor) -> None:
    page = visitor.open(month, "/admin/queue?status=failed&limit=30+Days")
    page.reload()
    page.locator("#pick-all").check()
    page.locator("#select-matching").click()
    page.locator("#selection [data-action=retry]").click()
    title = page.locator("#bulk-title")
    expect(title).to_contain_text("failed jobs, in the last 30 days")
    wanted = month.sql(
        "SELECT count(*) FROM llm_workflow_jobs WHERE status = 'failed' AND created_at > now() - interval '720 hours'"
    )[0][0]
    expect(title).to_contain_text(f"{wanted:,} jobs")
    expect(page.locator("#bulk-yes")).to_be_disabled()
    page.locator("#bulk-body input").fill(str(wanted))
    expect(page.locator("#bulk-yes")).to_be_enabled()
    page.keyboard.press("Escape")
    expect(page.locator("#selection [data-action=retry]")).to_be_focused()


def test_a_failing_query_is_said_and_the_rows_stay(month: Site, visitor: Visitor) -> None:
    page = visitor.open(month, "/admin/queue")
    before = rows(page)
    page.route(
        "**/admin/queue/rows**",
        lambda route: route.fulfill(
            status=503,
            json={"detail": {"error": "ServiceUnavailable", "message": "away"}},
            headers={"x-request-id": "abc123"},
        ),
    )
    page.locator("#refresh").click()
    expect(page.locator("#failure")).to_contain_text("Database unavailable")
    expect(page.locator("#failure")).to_contain_text("abc123")
    assert rows(page) == before
    page.unroute("**/admin/queue/rows**")
    page.get_by_role("button", name="Retry now").click()
    expect(page.locator("#failure")).to_be_hidden()


def test_a_lost_session_leads_to_the_login_and_back(month: Site, visitor: Visitor) -> None:
    page = visitor.open(month, "/admin/queue?status=failed")
    page.context.clear_cookies()
    page.locator("#refresh").click()
    page.wait_for_selector("#password")
    page.fill("#password", "an admin password of tests")
    page.keyboard.press("Enter")
    page.wait_for_selector("#jobs")
    assert page.url.endswith("/admin/queue?status=failed")


def test_a_wrong_clock_changes_no_relative_time(month: Site, visitor: Visitor) -> None:
    page = visitor.open(month, "/admin/queue?status=failed")
    created = page.locator(f"#job-{STORY} .c-created time")
    right = created.inner_text()
    page.add_init_script("const real = Date.now; Date.now = () => real() + 7200000;")
    page.reload()
    wrong = created.inner_text()
    assert re.fullmatch(r"\d+ min ago", right)
    assert abs(int(wrong.split()[0]) - int(right.split()[0])) <= 1


def test_hostile_text_is_shown_and_never_run(month: Site, visitor: Visitor) -> None:
    for text in HOSTILE:
        month.sql(INSERT, text, text, "failed", text[:50])
    page = visitor.open(month, "/admin/queue?limit=Today&status=failed")
    settle(page)
    words = page.locator("#jobs").inner_text()
    assert "<script>alert(1)</script>" in words
    assert "{{7*7}}" in words
    assert "a\\u202eb\\u200bc" in words
    assert "\\x1b[31mred" in words
    page.locator("#jobs .title", has_text="<img src=x").first.click()
    page.wait_for_selector("#job")
    page.goto(month.url + "/admin/queue?user=%3Cscript%3Ealert(1)%3C/script%3E&limit=%3Cimg%20src=x%3E")
    assert "<img src=x>" in page.locator(".notice").inner_text()
    assert visitor.complaints == []
    month.sql("DELETE FROM llm_workflow_jobs WHERE username = ANY($1)", HOSTILE)


def test_hostile_text_in_every_part_of_a_job_is_text(month: Site, visitor: Visitor) -> None:
    text = "".join(HOSTILE)
    job_id = month.sql(INSERT, text[:255], text[:255], "failed", text[:50])[0][0]
    month.sql(
        """UPDATE llm_workflow_jobs SET workflow_name = left($2, 100), error_message = repeat($2, 40), webhook_url = 'https://' || $2,
           input_data = jsonb_build_object($2, $2), result = jsonb_build_object('answer', $2) WHERE id = $1::uuid""",
        job_id,
        text,
    )
    page = visitor.open(month, f"/admin/queue?workflow={quote(text[:100])}")
    settle(page)
    page.locator("#jobs .title").first.click()
    expect(page.locator("#panel #job")).to_be_visible()
    for where in (
        ".job-title h1",
        "#error-message",
        ".hook-url",
        "[data-live=input] .tree",
        "[data-live=output] .tree",
        ".facts",
    ):
        said = page.locator(f"#panel {where}").first.inner_text()
        assert "<script>alert(1)</script>" in said, where
        assert "{{7*7}}" in said, where
    page.reload()
    expect(page.locator("#error-message")).to_contain_text("\\x1b[31mred")
    assert page.locator("#job img, #job script, #job iframe").count() == 0
    assert visitor.complaints == []
    month.sql("DELETE FROM llm_workflow_jobs WHERE id = $1::uuid", job_id)


def test_jobs_from_before_users_and_actions_were_kept_are_shown(month: Site, visitor: Visitor) -> None:
    page = visitor.open(month, "/admin/queue?limit=200")
    bare = page.locator("#jobs tbody tr", has=page.locator(".c-user .none"))
    assert bare.count() >= 3
    assert "summarize" not in bare.first.inner_text()


def test_a_large_result_opens_at_once(month: Site, visitor: Visitor) -> None:
    job_id = month.sql(INSERT, "archive", "dump", "completed", None)[0][0]
    month.sql(
        "UPDATE llm_workflow_jobs SET result = (SELECT jsonb_object_agg('key' || n, jsonb_build_object('n', 9007199254740993 + n, 'text', repeat('x', 30))) FROM generate_series(1, 50000) n) WHERE id = $1::uuid",
        job_id,
    )
    page = visitor.open(month, f"/admin/queue/{job_id}")
    took = page.evaluate("performance.getEntriesByType('navigation')[0].transferSize")
    assert took < 200_000
    assert "The first 32.0 KB of" in page.locator(".cut").inner_text()
    assert "9007199254740994" in page.locator("#output-text").inner_text()
    with page.expect_download() as download:
        page.get_by_role("link", name="Download the output as JSON").click()
    assert download.value.path().stat().st_size > 2_000_000


NOTE_LONG_TASKS = """
window.longest = 0;
new PerformanceObserver(list => {
    for (const task of list.getEntries()) window.longest = Math.max(window.longest, task.duration);
}).observe({type: 'longtask', buffered: true});
"""


@pytest.mark.parametrize(
    ("name", "result"),
    [
        (
            "5 MB",
            "(SELECT jsonb_object_agg('key' || n, repeat(md5(n::text), 8)) FROM generate_series(1, 18500) n)",
        ),
        (
            "2,000 nodes, as a tree",
            "(SELECT jsonb_build_object('all', jsonb_agg(n)) FROM generate_series(1, 1998) n)",
        ),
        (
            "100,000 nodes",
            "(SELECT jsonb_build_object('all', jsonb_agg(n)) FROM generate_series(1, 100000) n)",
        ),
    ],
)
def test_a_huge_result_opens_within_a_second_and_never_holds_the_tab_up(
    month: Site, visitor: Visitor, name: str, result: str
) -> None:
    job_id = month.sql(INSERT, "archive", f"dump {name}", "completed", None)[0][0]
    month.sql(f"UPDATE llm_workflow_jobs SET result = {result} WHERE id = $1::uuid", job_id)
    page = visitor.open(month, f"/admin/queue/{STORY}")
    page.add_init_script(NOTE_LONG_TASKS)
    page.goto(month.url + f"/admin/queue/{job_id}")
    page.locator("[data-live=output] .card-tools").get_by_role("button", name="Copy").click()
    expect(page.locator("#said")).not_to_be_empty()
    interactive_ms = page.evaluate("performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd")
    longest_ms = page.evaluate("window.longest")
    assert interactive_ms < 1000
    assert longest_ms <= 200


def test_a_running_job_is_followed_to_its_end(month: Site, visitor: Visitor) -> None:
    page = visitor.open(month, f"/admin/queue/{RUNNING}")
    expect(page.locator(".job-head .state")).to_have_text("Running")
    month.sql(
        "UPDATE llm_workflow_jobs SET status = 'failed', completed_at = now(), duration_ms = 99000, error_code = 'JobTimeout', error_message = 'Too slow.' WHERE id = $1",
        RUNNING,
    )
    expect(page.get_by_role("heading", name="Why it failed")).to_be_visible(timeout=15_000)
    expect(page.locator("#error-message")).to_have_text("Too slow.")


def test_the_theme_and_the_zone_are_remembered(month: Site, visitor: Visitor) -> None:
    page = visitor.open(month, f"/admin/queue/{STORY}", timezone_id="Europe/Prague")
    page.get_by_role("button", name="View settings").click()
    page.get_by_text("Dark", exact=True).click()
    page.get_by_text("Local").click()
    page.reload()
    assert page.evaluate("getComputedStyle(document.body).colorScheme") == "dark"
    expect(page.locator(".facts time").first).to_contain_text("UTC+01:00")


def test_s30_no_interval_that_a_browser_keeps_or_a_page_is_given_goes_below_2_s(
    month: Site, visitor: Visitor
) -> None:
    page = visitor.open(month, "/admin/queue")
    page.clock.install()
    page.evaluate("localStorage.setItem('llm-queue.live', '0.001')")
    page.reload()
    settle(page)
    expect(page.locator("#live")).to_have_value("5")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if "/rows" in request.url else None)
    page.evaluate("""() => {
        const live = document.getElementById('live');
        live.append(new Option('fast', '0.001'));
        live.value = '0.001';
        live.dispatchEvent(new Event('change'));
    }""")
    for _ in range(10):
        page.clock.run_for(1_000)
        page.wait_for_timeout(50)
    assert 1 <= len(asked) <= 5
    poll = (page.locator("script[type=module]").get_attribute("src") or "").replace("queue.js", "poll.js")
    spaced = page.evaluate(
        "address => import(address).then(({ spaced }) => [0.1, 1999, 2000, 5000, 0, -1, NaN].map(spaced))",
        poll,
    )
    assert spaced == [2000, 2000, 2000, 5000, 0, 0, 0]
    page.evaluate("localStorage.clear()")


def test_s30_a_page_that_is_refused_comes_again_when_it_was_told_to(month: Site, visitor: Visitor) -> None:
    page = visitor.open(month, "/admin/queue?limit=50")
    page.clock.install()
    page.reload()
    settle(page)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if "/rows" in request.url else None)
    page.route(
        "**/admin/queue/rows**",
        lambda route: route.fulfill(
            status=429,
            json={"detail": {"error": "PollingTooFast", "message": "too often"}},
            headers={"retry-after": "40"},
        ),
    )
    with page.expect_response("**/admin/queue/rows**"):
        page.clock.run_for(6_000)
    page.wait_for_timeout(100)
    page.clock.run_for(35_000)
    assert len(asked) == 1
    with page.expect_request("**/admin/queue/rows**"):
        page.clock.run_for(10_000)
    visitor.complaints.clear()  # the browser notes each 429


@pytest.mark.parametrize("width", [1440, 320])
def test_s28_a_reader_works_with_the_page_and_finds_no_button(
    month: Site, visitor: Visitor, width: int
) -> None:
    page = visitor.open(month, "/admin/queue?status=failed", width=width)
    page.context.clear_cookies()
    page.reload()
    page.fill("#password", READER_PASSWORD)
    page.keyboard.press("Enter")
    page.wait_for_selector("#jobs")
    expect(page.get_by_text("Read only")).to_be_visible()
    for key in ("j", "x", "r"):
        page.keyboard.press(key)
    expect(page.locator("#said")).to_contain_text("updated")
    assert page.locator(".pick, #selection, #bulk").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.locator("#jobs .title").first.click()
    page.wait_for_selector("#job")
    assert page.locator(".deed, [data-action]").count() == 0
    assert visitor.complaints == []


def test_the_id_of_a_job_is_copied_whole(month: Site, visitor: Visitor) -> None:
    page = visitor.open(month, f"/admin/queue/{STORY}", permissions=["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Copy the job id").click()
    expect(page.locator("#said")).to_have_text("Copied.")
    assert page.evaluate("navigator.clipboard.readText()") == str(STORY)
