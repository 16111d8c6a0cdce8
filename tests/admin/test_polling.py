"""How often a view may be looked at: a page that polls too fast is refused, a person in a hurry never is."""

import itertools
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
from tests.admin.conftest import BASE, FETCH, Browser, log_in
from tests.statements import statements_sent

from llm_service.admin.errors import PollingTooFast
from llm_service.admin.polling import BURST, EVERY_S, MOST_VIEWS, Looks
from llm_service.settings import Settings

NOBODY = "11111111-1111-7111-8111-111111111111"


class Clock:
    def __init__(self) -> None:
        self.moment = 1000.0

    def __call__(self) -> float:
        return self.moment


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def looks(clock: Clock) -> Looks:
    return Looks(clock)


def passes(looks: Looks, view: str = "rows", session: str = "a") -> bool:
    try:
        looks.refuse_haste(session, view)
    except PollingTooFast:
        return False
    return True


# --- what is refused --------------------------------------------------------------------------------------


@pytest.mark.parametrize("interval_s", [0.001, 0.1, 1.0, 1.9])
def test_s30_who_polls_faster_gets_no_more_than_one_look_in_2_s(
    looks: Looks, clock: Clock, interval_s: float
) -> None:
    """Over ten minutes, whatever the interval: the burst, and one in 2 s."""
    seen = 0
    while clock.moment < 1600:
        seen += passes(looks)
        clock.moment += interval_s
    assert 600 / EVERY_S <= seen <= BURST + 600 / EVERY_S + 1


def test_s30_the_answer_says_when_to_come_again(looks: Looks, clock: Clock) -> None:
    while passes(looks):
        clock.moment += 0.01
    with pytest.raises(PollingTooFast) as refused:
        looks.refuse_haste("a", "rows")
    wait_s = int(refused.value.headers["Retry-After"])
    assert 1 <= wait_s <= EVERY_S
    clock.moment += wait_s
    assert passes(looks)
    assert not passes(looks)


def test_one_view_or_session_does_not_use_up_anothers(looks: Looks) -> None:
    while passes(looks):
        pass
    assert passes(looks, view="rows status=failed")
    assert passes(looks, session="b")


def test_the_memory_of_views_is_bounded_and_keeps_the_busiest(looks: Looks, clock: Clock) -> None:
    while passes(looks):
        pass
    for number in range(2 * MOST_VIEWS):
        assert passes(looks, view=f"rows user={number}")
        assert len(looks._used_up_to) <= MOST_VIEWS
    assert not passes(looks), "a flood of other views gives nothing back"
    clock.moment += 3600
    assert passes(looks, view="later")
    for number in range(MOST_VIEWS):
        passes(looks, view=f"rows action={number}")
    assert len(looks._used_up_to) <= MOST_VIEWS


# --- what never is ----------------------------------------------------------------------------------------


def test_a_page_that_asks_every_2_s_is_never_refused(looks: Looks, clock: Clock) -> None:
    for _ in range(5_000):
        assert passes(looks)
        clock.moment += EVERY_S


def test_two_windows_side_by_side_on_one_view_are_never_refused(looks: Looks, clock: Clock) -> None:
    for _ in range(2_000):
        assert passes(looks)
        assert passes(looks)
        clock.moment += 5


def test_a_person_with_ten_tabs_is_never_refused(looks: Looks, clock: Clock) -> None:
    """Opens ten at once, then for an hour: reads half a minute, leafs through the tabs, presses refresh six times in
    a second. Each tab that is shown asks at once and then every 5 s; hidden ones ask nothing. Half of the tabs show the
    same view."""
    views = [f"rows {max(0, number - 5)}" for number in range(10)]
    chance = random.Random(1)
    for view in views:
        assert passes(looks, view)
    for turn in itertools.takewhile(lambda _: clock.moment < 4600, itertools.count()):
        for view in views:
            assert passes(looks, view), turn
            clock.moment += 0.3
        front = chance.choice(views)
        for _ in range(6):
            assert passes(looks, front), turn
            clock.moment += 1 / 6
        for _ in range(6):
            assert passes(looks, front), turn
            clock.moment += 5


def test_a_person_who_changes_filters_back_and_forth_is_never_refused(looks: Looks, clock: Clock) -> None:
    for _ in range(14):
        for view in ("rows", "rows status=failed"):
            assert passes(looks, view)
            clock.moment += 0.2


# --- over HTTP --------------------------------------------------------------------------------------------


@asynccontextmanager
async def somebody_else(settings: Settings, admin: Browser) -> AsyncIterator[httpx.AsyncClient]:
    """Another session at the same process."""
    async with httpx.AsyncClient(transport=admin.client._transport, base_url=BASE) as other:
        await log_in(other)
        yield other


async def test_s30_rows_are_refused_to_who_asks_too_often(admin: Browser, settings: Settings) -> None:
    """The counts, an ETag and unknown parameters make no other view of it; other filters, places and sessions do."""
    same = ["", "?part=all", "?limit=25", "?colour=red", "?status=all&part=all"]
    for number in range(BURST):
        answer = await admin.client.get(f"/admin/queue/rows{same[number % len(same)]}", headers=FETCH)
        assert answer.status_code == 200
    for path in same:
        refused = await admin.client.get(f"/admin/queue/rows{path}", headers=FETCH | {"If-None-Match": "x"})
        assert refused.status_code == 429, path
        assert refused.json()["detail"]["error"] == "PollingTooFast"
        assert 1 <= int(refused.headers["retry-after"]) <= EVERY_S
    for path in (
        "/admin/queue/rows?status=failed",
        "/admin/queue/rows?limit=7+Days&cursor=x",
        "/admin/queue",
    ):
        assert (await admin.client.get(path, headers=FETCH)).status_code == 200
    page = await admin.client.get("/admin/queue/rows")
    assert (page.status_code, page.headers["content-type"]) == (429, "text/html; charset=utf-8")
    assert "Too many requests" in page.text
    async with somebody_else(settings, admin) as other:
        assert (await other.get("/admin/queue/rows", headers=FETCH)).status_code == 200


@pytest.mark.parametrize("path", [f"/admin/queue/{NOBODY}", "/admin/insight"])
async def test_s30_so_are_a_job_and_the_charts(admin: Browser, path: str) -> None:
    for _ in range(BURST):
        assert (await admin.client.get(path, headers=FETCH)).status_code in (200, 404)
    assert (await admin.client.get(path, headers=FETCH)).status_code == 429


async def test_going_to_a_jobs_page_is_no_polling(admin: Browser) -> None:
    for _ in range(BURST + 5):
        assert (await admin.client.get(f"/admin/queue/{NOBODY}")).status_code == 404


async def test_what_is_refused_asks_the_database_for_the_session_alone(admin: Browser) -> None:
    for _ in range(BURST):
        await admin.client.get("/admin/queue/rows", headers=FETCH)
    with statements_sent() as sent:
        assert (await admin.client.get("/admin/queue/rows", headers=FETCH)).status_code == 429
    assert len(sent) == 1, sent
