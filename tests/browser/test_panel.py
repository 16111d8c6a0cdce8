"""A job beside the list: at its own address, followed to its end, and gone again without a trace in the list."""

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect
from tests.browser.conftest import Site, Visitor
from tests.browser.seed import RUNNING, STORY
from tests.browser.test_looks import CUT_OFF, axe_violations, settle
from tests.browser.test_work import INSERT, rows

LIST = "/admin/queue?status=failed&limit=30+Days"


def open_first(visitor: Visitor, site: Site, path: str = LIST, **options: int | str) -> Page:
    page = visitor.open(site, path, **options)  # type: ignore[arg-type]
    settle(page)
    page.locator("#jobs .title").first.click()
    expect(page.locator("#panel #job")).to_be_visible()
    return page


def shown(page: Page) -> str:
    """The id of the job in the panel, once it is the one that the address names."""
    expect(page.locator("#panel[aria-busy=false]")).to_be_visible()
    found: str | None = page.locator("#panel #job").get_attribute("data-id")
    assert found is not None
    assert f"/admin/queue/{found}?" in page.url
    return found


def test_a_row_opens_beside_the_list_at_the_address_of_its_page(month: Site, visitor: Visitor) -> None:
    page = open_first(visitor, month, width=1280)
    assert shown(page) == rows(page)[0]
    assert page.url.endswith(f"/admin/queue/{rows(page)[0]}?status=failed&limit=30+Days")
    expect(page.locator("#panel")).to_be_focused()
    expect(page.locator("#panel h1")).to_have_text(page.locator("#jobs .title").first.inner_text())
    assert page.locator("#jobs tbody tr").count() == 50
    page.reload()
    assert page.locator("#panel").count() == 0
    expect(page.get_by_role("heading", name="Why it failed")).to_be_visible()


def test_back_closes_it_and_the_list_is_as_it_was(month: Site, visitor: Visitor) -> None:
    page = visitor.open(month, LIST, width=1440)
    settle(page)
    page.locator("#jobs tbody .pick input").nth(2).check()
    row = page.locator("#jobs tbody tr").nth(30)
    row.scroll_into_view_if_needed()
    assert page.evaluate("scrollY") > 300
    row.locator(".title").click()
    expect(page.locator("#panel #job")).to_be_visible()
    page.evaluate("scrollBy(0, 250)")
    before = page.evaluate("scrollY")
    page.go_back()
    expect(page.locator("#panel")).to_be_hidden()
    assert page.url == month.url + LIST
    expect(row.locator(".title")).to_be_focused()
    expect(row).to_be_in_viewport()
    assert abs(page.evaluate("scrollY") - before) < 80
    expect(page.locator("#jobs tbody .pick input").nth(2)).to_be_checked()
    expect(page.locator("#selected-count")).to_have_text("1 selected")
    page.go_forward()
    expect(page.locator("#panel #job")).to_be_visible()


def test_j_and_k_go_through_the_list_and_one_escape_leaves(month: Site, visitor: Visitor) -> None:
    page = visitor.open(month, LIST)
    settle(page)
    title = page.title()
    order = rows(page)
    page.locator("#jobs .title").first.click()
    expect(page.locator("#panel #job")).to_be_visible()
    for step, key in ((1, "j"), (2, "j"), (1, "k")):
        page.keyboard.press(key)
        expect(page.locator(f"#panel #job[data-id='{order[step]}']")).to_be_visible()
        assert shown(page) == order[step]
        expect(page.locator("#jobs tr[aria-current]")).to_have_id(f"job-{order[step]}")
    expect(page.locator("#said")).to_have_text(page.title())
    page.keyboard.press("Escape")
    expect(page.locator("#panel")).to_be_hidden()
    assert page.url == month.url + LIST
    expect(page.locator(f"#job-{order[1]} .title")).to_be_focused()
    assert page.title() == title


def test_keys_held_down_end_at_the_last_job_asked_for(month: Site, visitor: Visitor) -> None:
    page = open_first(visitor, month)
    order = rows(page)
    for _ in range(8):
        page.keyboard.press("j")
    expect(page.locator(f"#panel #job[data-id='{order[8]}']")).to_be_visible()
    assert shown(page) == order[8]


def test_after_a_reload_of_the_job_back_leads_to_the_list(month: Site, visitor: Visitor) -> None:
    page = open_first(visitor, month)
    page.reload()
    page.wait_for_selector("main #job")
    page.go_back()
    page.wait_for_selector("#jobs")
    assert page.url == month.url + LIST
    assert page.locator("#job").count() == 0


def test_a_middle_click_opens_the_page_in_a_tab(month: Site, visitor: Visitor) -> None:
    page = visitor.open(month, LIST)
    with page.context.expect_page() as opened:
        page.locator("#jobs .title").first.click(button="middle")
    opened.value.wait_for_selector("main #job")
    expect(page.locator("#panel")).to_be_hidden()
    assert page.url == month.url + LIST


def test_where_there_is_no_room_a_row_leads_to_the_page(month: Site, visitor: Visitor) -> None:
    page = visitor.open(month, LIST, width=1279)
    page.locator("#jobs .title").first.click()
    page.wait_for_selector("main #job")
    assert page.locator("#panel").count() == 0


def test_a_window_made_narrow_has_the_page_of_the_job(month: Site, visitor: Visitor) -> None:
    page = open_first(visitor, month)
    page.set_viewport_size({"width": 900, "height": 800})
    page.wait_for_selector("main #job")
    assert page.locator("#jobs").count() == 0


def test_a_running_job_is_followed_in_the_panel_and_keeps_what_was_opened(
    month: Site, visitor: Visitor
) -> None:
    job_id = month.sql(INSERT, "follower", "run on", "processing", None)[0][0]
    month.sql(
        """UPDATE llm_workflow_jobs SET started_at = now(), completed_at = NULL, input_data = '{"a": {"deep": {"er": 1}}, "b": [1, 2]}',
           lease_expires_at = now() + interval '1 hour' WHERE id = $1::uuid""",
        job_id,
    )
    page = open_first(visitor, month, "/admin/queue?user=follower")
    expect(page.locator("#panel .job-head .state")).to_have_text("Running")
    page.locator("#panel .tree summary", has_text='"deep"').click()
    page.locator("#panel").evaluate("panel => panel.dataset.marked = 'yes'")
    tree = page.locator("#panel [data-live=input] .tree")
    tree.evaluate("tree => tree.marked = true")
    month.sql(
        "UPDATE llm_workflow_jobs SET status = 'completed', completed_at = now(), duration_ms = 7, result = '{\"done\": true}' WHERE id = $1::uuid",
        job_id,
    )
    expect(page.locator("#panel .job-head .state")).to_have_text("Completed", timeout=15_000)
    expect(page.locator("#panel [data-live=output] .tree")).to_contain_text('"done"')
    assert tree.evaluate("tree => tree.marked") is True
    assert page.locator("#panel .tree details:not([open])").count() == 1
    expect(page.locator(f"#job-{job_id} .state")).to_have_text("Completed", timeout=15_000)
    expect(page.locator(f"#job-{job_id}")).to_have_attribute("aria-current", "true")
    month.sql("DELETE FROM llm_workflow_jobs WHERE username = 'follower'")


def test_an_action_in_the_panel_keeps_the_list_and_shows_what_came_of_it(
    month: Site, visitor: Visitor
) -> None:
    job_id = month.sql(INSERT, "actor", "act", "failed", "WorkerLost")[0][0]
    month.sql(
        """UPDATE llm_workflow_jobs SET input_data = '{"prompt": "again"}' WHERE id = $1::uuid""", job_id
    )
    page = open_first(visitor, month, "/admin/queue?user=actor")
    before = page.url
    page.locator("#panel summary", has_text="Retry").click()
    page.get_by_role("button", name="Retry the job").click()
    expect(page.locator("#panel .done")).to_contain_text("1 job submitted again")
    assert page.url == before
    page.locator("#panel .done a").click()
    page.wait_for_selector("main #job")
    new_id = page.locator("#job").get_attribute("data-id")
    assert (
        month.sql("SELECT retried_from::text FROM llm_workflow_jobs WHERE id = $1::uuid", new_id)[0][0]
        == job_id
    )


def test_an_action_that_comes_too_late_says_so_and_shows_the_state_there_is(
    month: Site, visitor: Visitor
) -> None:
    job_id = month.sql(INSERT, "late", "act late", "pending", None)[0][0]
    page = open_first(visitor, month, "/admin/queue?user=late")
    page.locator("#panel summary", has_text="Cancel").click()
    month.sql(
        "UPDATE llm_workflow_jobs SET status = 'completed', completed_at = now() WHERE id = $1::uuid", job_id
    )
    page.get_by_role("button", name="Cancel the job").click()
    expect(page.locator("#panel .done")).to_contain_text("completed")
    expect(page.locator("#panel .job-head .state")).to_have_text("Completed")


def test_a_job_that_was_deleted_says_so(month: Site, visitor: Visitor) -> None:
    job_id = month.sql(INSERT, "gone", "go away", "failed", None)[0][0]
    page = visitor.open(month, "/admin/queue?user=gone")
    month.sql("DELETE FROM llm_workflow_jobs WHERE id = $1::uuid", job_id)
    page.locator("#jobs .title").first.click()
    expect(page.locator("#panel-failure")).to_contain_text("not there any more")
    page.keyboard.press("Escape")
    expect(page.locator("#panel")).to_be_hidden()
    visitor.complaints.clear()  # the browser notes each 404


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 1440])
def test_the_panel_fits_and_is_accessible(
    month: Site, visitor: Visitor, picture: Callable[[Page, str], None], width: int, theme: str
) -> None:
    page = visitor.open(month, "/admin/queue?limit=Today", width=width, theme=theme)
    settle(page)
    page.locator(f"#job-{STORY} .title").click()
    expect(page.locator("#panel #job")).to_be_visible()
    page.evaluate("scrollTo(0, 0)")  # a row half under the heads of the table has a small target
    picture(page, f"panel-{width}-{theme}")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(
        "document.getElementById('panel').scrollWidth <= document.getElementById('panel').clientWidth"
    )
    assert page.evaluate(CUT_OFF) == []
    assert axe_violations(page) == []


def test_the_panel_of_a_running_job_does_not_hold_up_the_list(month: Site, visitor: Visitor) -> None:
    page = visitor.open(month, "/admin/queue?status=running")
    page.locator(f"#job-{RUNNING} .title").click()
    expect(page.locator("#panel .job-head .state")).to_have_text(re.compile("Running|Failed"))
    with page.expect_request("**/admin/queue/rows**", timeout=15_000):
        pass
