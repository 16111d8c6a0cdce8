"""Every page at every width in both themes: nothing is cut off, nothing breaks a rule of accessibility."""

from collections.abc import Callable

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page
from tests.browser.conftest import Site, Visitor
from tests.browser.seed import STORY

WIDTHS = (320, 768, 1024, 1440)
PAGES = {
    "list": "/admin/queue?limit=7+Days",
    "failed": "/admin/queue?status=failed",
    "detail": f"/admin/queue/{STORY}",
    "empty": "/admin/queue?user=nobody&limit=Today",
    "notices": "/admin/queue?limit=26&colour=red",
    "missing": "/admin/queue/01981c5e-0000-7000-8000-000000000000",
    "error": "/admin/nothing-here",
    "login": "/admin?stay",
}
CUT_OFF = """() => [...document.querySelectorAll('button, a, select, input, h1, h2, summary')].filter(element => {
  const box = element.getBoundingClientRect(), style = getComputedStyle(element);
  if (element.tagName !== 'SUMMARY' && element.closest('details:not([open])')) return false;
  if (!box.width || style.clipPath !== 'none' || element.closest('.scroll, pre, .skip, .unseen, thead, .choice')) return false;
  return box.left < -1 || box.right > innerWidth + 1;
}).map(element => element.outerHTML.slice(0, 120))"""


def settle(page: Page) -> None:
    page.wait_for_load_state("load")
    if page.locator(".insight[open]").count():
        page.wait_for_selector(".insight .bars, .insight .muted")


FEWER_ROWS = "() => [...document.querySelectorAll('#jobs tbody tr')].slice(20).forEach(row => row.remove())"


def axe_violations(page: Page, within: str | None = None) -> list[str]:
    """What breaks a rule, in the whole page with its first rows: those that follow are made as they are."""
    page.evaluate(FEWER_ROWS)
    found = Axe().run(
        page,
        context=within,
        options={"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]},
    )
    return [
        f"{rule['id']}: {rule['help']}: {[node['html'][:160] for node in rule['nodes'][:3]]}"
        for rule in found.response["violations"]
    ]


def fresh_login(visitor: Visitor, site: Site, path: str, width: int, theme: str) -> Page:
    """The login form is for who is not logged in."""
    visitor._states.pop(site.url, None)
    return visitor.open(site, path, width=width, theme=theme)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", list(PAGES))
def test_a_page_fits_and_is_accessible(
    month: Site, visitor: Visitor, picture: Callable[[Page, str], None], name: str, width: int, theme: str
) -> None:
    page = (fresh_login if name == "login" else _open)(visitor, month, PAGES[name], width, theme)
    settle(page)
    picture(page, f"{name}-{width}-{theme}")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(CUT_OFF) == []
    if width in (320, 1440):  # between them the same rules apply to the same elements
        assert axe_violations(page) == []


def _open(visitor: Visitor, site: Site, path: str, width: int, theme: str) -> Page:
    return visitor.open(site, path, width=width, theme=theme)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 1440])
def test_panels_and_dialogs_fit_and_are_accessible(
    month: Site, visitor: Visitor, picture: Callable[[Page, str], None], width: int, theme: str
) -> None:
    page = visitor.open(month, "/admin/queue?status=failed", width=width, theme=theme)
    page.get_by_role("button", name="View settings").click()
    picture(page, f"view-{width}-{theme}")
    assert axe_violations(page) == []
    page.keyboard.press("Escape")
    page.locator("#jobs tbody .pick input").first.check()
    page.locator("#selection [data-action=retry]").click()
    page.wait_for_selector("#bulk-yes:visible")
    picture(page, f"dialog-{width}-{theme}")
    assert axe_violations(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("width", WIDTHS)
def test_the_questions_of_the_actions_fit(
    month: Site, visitor: Visitor, picture: Callable[[Page, str], None], width: int
) -> None:
    page = visitor.open(month, PAGES["detail"], width=width)
    settle(page)
    questions = page.locator(".deed")
    assert questions.count() == 2
    for number in range(questions.count()):
        questions.nth(number).locator("summary").click()
        picture(page, f"question-{number}-{width}")
        assert page.evaluate(CUT_OFF) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        questions.nth(number).locator("summary").click()


SMALL = """() => [...document.querySelectorAll('button, .button, select, input, summary, .chip, .top a')].filter(element => {
  const box = element.getBoundingClientRect();
  if (!box.width || element.closest('[hidden], .unseen, .skip, .choice, thead')) return false;
  const target = element.closest('label') ?? element.closest('.pick') ?? element;
  const size = target.getBoundingClientRect();
  return size.height < 43.5 || size.width < 43.5;
}).map(element => `${element.getBoundingClientRect().width} x ${element.getBoundingClientRect().height} ${element.outerHTML.slice(0, 120)}`)"""


@pytest.mark.parametrize("name", ["failed", "detail", "login"])
def test_controls_are_large_enough_for_a_finger(
    month: Site, visitor: Visitor, picture: Callable[[Page, str], None], name: str
) -> None:
    if name == "login":
        visitor._states.pop(month.url, None)
    page = visitor.open(month, PAGES[name], width=390, height=780, has_touch=True, is_mobile=True)
    settle(page)
    picture(page, f"touch-{name}")
    assert page.evaluate("matchMedia('(pointer: coarse)').matches")
    assert page.evaluate(SMALL) == []


def test_the_charts_say_the_same_as_a_table(
    month: Site, visitor: Visitor, picture: Callable[[Page, str], None]
) -> None:
    page = visitor.open(month, "/admin/queue?limit=7+Days", width=1440)
    page.locator("#more-insight").click()
    page.wait_for_selector("#less-insight")
    page.locator(".as-table summary").click()
    picture(page, "charts-1440-light")
    total = sum(
        int(cell.replace(",", ""))
        for cell in page.locator(".as-table tbody td:nth-child(2)").all_inner_texts()
    )
    wanted = month.sql(
        "SELECT count(*) FROM llm_workflow_jobs WHERE created_at >= now() - interval '168 hours'"
    )[0][0]
    assert total == wanted
    assert axe_violations(page, within=".insight") == []


def test_no_jobs_at_all_shows_how_to_submit_one(
    nothing: Site, visitor: Visitor, picture: Callable[[Page, str], None]
) -> None:
    page = visitor.open(nothing, "/admin/queue", width=1024)
    settle(page)
    picture(page, "no-jobs-1024-light")
    assert page.get_by_role("heading", name="No jobs yet").is_visible()
    assert "curl" in page.locator("#jobs pre").inner_text()
    assert "no worker is up" in page.locator(".banner").inner_text()
    assert axe_violations(page) == []


def test_without_script_the_table_the_filters_and_a_retry_work(
    month: Site, visitor: Visitor, picture: Callable[[Page, str], None]
) -> None:
    page = visitor.open(month, "/admin/queue", java_script_enabled=False)
    page.locator("#f-status").select_option("failed")
    page.locator("#f-user").fill("jane_smith")
    page.get_by_role("button", name="Apply").click()
    picture(page, "no-script-1280-light")
    assert set(page.locator("#jobs tbody .c-user").all_inner_texts()) == {"jane_smith"}
    page.locator("#jobs .title").first.click()
    assert page.get_by_role("heading", name="Why it failed").is_visible()
