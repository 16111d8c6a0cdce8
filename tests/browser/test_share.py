"""Several tabs of one browser with the same list: one asks, all show it."""

import time

from playwright.sync_api import BrowserContext, Page, Request, expect
from tests.browser.conftest import Site, Visitor
from tests.browser.test_work import INSERT

LIST = "/admin/queue?user=sharer"


class Asked:
    """Counts what each tab of a browser asks for its list."""

    def __init__(self, context: BrowserContext) -> None:
        self.by_tab: dict[Page, int] = {}
        context.on("request", self._note)

    def _note(self, request: Request) -> None:
        if "/admin/queue/rows" in request.url:
            page = request.frame.page
            self.by_tab[page] = self.by_tab.get(page, 0) + 1


def arrive(site: Site) -> str:
    found: str = site.sql(INSERT, "sharer", "share", "completed", None)[0][0]
    return found


def test_of_two_tabs_with_one_list_one_asks_and_the_other_takes_over(month: Site, visitor: Visitor) -> None:
    arrive(month)
    first = visitor.open(month, LIST)
    second = first.context.new_page()
    second.goto(month.url + LIST)
    asked = Asked(first.context)
    began = time.monotonic()
    for _ in range(2):
        job_id = arrive(month)
        for tab in (first, second):
            expect(tab.locator(f"#job-{job_id}")).to_be_visible(timeout=15_000)
    # As many as one tab needs, at one in 5 s; each for itself they would be twice as many.
    assert 2 <= sum(asked.by_tab.values()) <= (time.monotonic() - began) / 5 + 1

    first.close()
    before = asked.by_tab.get(second, 0)
    job_id = arrive(month)
    expect(second.locator(f"#job-{job_id}")).to_be_visible(timeout=15_000)
    assert asked.by_tab[second] > before
    month.sql("DELETE FROM llm_workflow_jobs WHERE username = 'sharer'")


def test_a_hidden_tab_leaves_the_asking_to_the_other(month: Site, visitor: Visitor) -> None:
    arrive(month)
    first = visitor.open(month, LIST)
    second = first.context.new_page()
    second.goto(month.url + LIST)
    first.evaluate("""() => {
        Object.defineProperty(document, 'hidden', {value: true, configurable: true});
        document.dispatchEvent(new Event('visibilitychange'));
    }""")
    asked = Asked(first.context)
    job_id = arrive(month)
    for tab in (second, first):
        expect(tab.locator(f"#job-{job_id}")).to_be_visible(timeout=15_000)
    assert list(asked.by_tab) == [second]
    month.sql("DELETE FROM llm_workflow_jobs WHERE username = 'sharer'")


def test_tabs_with_other_lists_do_not_hear_each_other(month: Site, visitor: Visitor) -> None:
    first = visitor.open(month, LIST)
    second = first.context.new_page()
    second.goto(month.url + "/admin/queue?user=somebody_else")
    asked = Asked(first.context)
    first.locator("#refresh").click()
    expect(first.locator("#said")).to_contain_text("updated")
    second.locator("#refresh").click()
    expect(second.locator("#said")).to_contain_text("updated")
    assert asked.by_tab == {first: 1, second: 1}
    assert second.locator("#jobs").inner_text().startswith("No jobs of somebody_else")
