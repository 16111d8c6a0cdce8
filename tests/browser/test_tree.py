"""JSON as a tree: as the server wrote it, opened and closed by keyboard, and never more than a browser bears."""

import json
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Page, expect
from tests.browser.conftest import Site, Visitor
from tests.browser.test_looks import axe_violations
from tests.browser.test_work import HOSTILE, INSERT

RAW = """{"big": 9007199254740993, "small": 1.10e-7, "many": [12345678901234567890, -0.0, 1.50, true, null],
 "empty": {}, "none": [], "text": "a \\"quoted\\": [1, 2], {text},", "nested": {"one": {"two": {"three": "deep"}}}}"""


@pytest.fixture
def result_page(month: Site, visitor: Visitor) -> Iterator[Callable[[str], Page]]:
    made: list[str] = []

    def open_page(result: str) -> Page:
        job_id = month.sql(INSERT, "gardener", "grow", "completed", None)[0][0]
        made.append(job_id)
        month.sql("UPDATE llm_workflow_jobs SET result = $2::jsonb WHERE id = $1::uuid", job_id, result)
        return visitor.open(month, f"/admin/queue/{job_id}")

    yield open_page
    month.sql("DELETE FROM llm_workflow_jobs WHERE id = ANY($1::uuid[])", made)


def output(page: Page) -> str:
    """All that the tree of the output says, line by line."""
    return "\n".join(page.locator("[data-live=output] .tree").all_inner_texts())


def test_numbers_are_spelled_as_the_database_has_them(
    result_page: Callable[[str], Page], picture: Callable[[Page, str], None]
) -> None:
    page = result_page(RAW)
    picture(page, "tree-1280-light")
    said = output(page)
    for number in ("9007199254740993", "0.000000110", "12345678901234567890", "1.50"):
        assert number in said
    assert '"text": "a \\"quoted\\": [1, 2], {text},"' in said
    assert "5 items ]" in said
    assert '"empty": {}' in said
    assert '"none": []' in said
    assert axe_violations(page) == []


def test_the_tree_and_the_text_are_two_views_of_the_same_and_the_choice_is_kept(
    result_page: Callable[[str], Page],
) -> None:
    page = result_page(RAW)
    text = page.locator("#output-text")
    tree = page.locator("[data-live=output] .tree")
    expect(tree).to_be_visible()
    expect(text).to_be_hidden()
    switch = page.get_by_role("group", name="Show the output as")
    switch.get_by_role("button", name="Text").click()
    expect(text).to_be_visible()
    expect(tree).to_be_hidden()
    expect(switch.get_by_role("button", name="Text")).to_have_attribute("aria-pressed", "true")
    page.reload()
    expect(text).to_be_visible()
    assert json.loads(text.inner_text()) == json.loads(RAW)


def test_a_branch_opens_and_closes_by_keyboard(result_page: Callable[[str], Page]) -> None:
    page = result_page(RAW)
    inner = page.locator(".tree-key", has_text='"three"')
    expect(inner).to_be_visible()
    page.locator("[data-live=output] .tree summary", has_text='"nested"').focus()
    page.keyboard.press("Enter")
    expect(inner).to_be_hidden()
    page.keyboard.press("Space")
    expect(inner).to_be_visible()


def test_a_document_of_2000_nodes_has_a_tree_and_one_more_has_not(result_page: Callable[[str], Page]) -> None:
    page = result_page(json.dumps({"n": [1] * 1998}))
    expect(page.locator("[data-live=output] .tree li")).to_have_count(1999)
    expect(page.locator("[data-live=output] .tree li").last).to_be_hidden()
    page = result_page(json.dumps({"n": [1] * 1999}))
    expect(page.locator("#output-text")).to_be_visible()
    assert page.locator("[data-live=output] .tree").count() == 0


def test_a_document_that_is_shown_in_part_stays_text(result_page: Callable[[str], Page]) -> None:
    page = result_page(json.dumps({"long": "x" * 40_000}))
    expect(page.locator("#output-text")).to_be_visible()
    expect(page.locator("[data-live=output] .cut")).to_contain_text("The first 32.0 KB")
    assert page.locator("[data-live=output] .tree").count() == 0


def test_hostile_text_in_a_tree_is_text(result_page: Callable[[str], Page], visitor: Visitor) -> None:
    page = result_page(json.dumps({text: [text, {text: text}] for text in HOSTILE}))
    said = output(page)
    assert "<script>alert(1)</script>" in said
    assert "\\u202e" in said
    assert page.locator(".tree script, .tree img, .tree a").count() == 0
    assert visitor.complaints == []
