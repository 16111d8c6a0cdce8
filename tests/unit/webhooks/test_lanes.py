"""Who may be under way at once: four to a host, half of the slots to slow hosts, and nobody who waits is forgotten."""

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_service.webhooks import lanes
from llm_service.webhooks.lanes import PER_HOST, SLOW_S, Lanes


def job(number: int) -> UUID:
    return UUID(int=number)


def make_slow(road: Lanes, host: str) -> None:
    assert road.enter(host, job(10**9))
    road.leave(host, took_s=SLOW_S)


def test_a_host_has_four_lanes_and_another_its_own() -> None:
    road = Lanes(100)
    assert [road.enter("hangs", job(n)) for n in range(6)] == [True] * PER_HOST + [False] * 2
    assert road.enter("answers", job(6))


def test_who_waits_follows_in_order_when_a_lane_is_left() -> None:
    road = Lanes(100)
    for n in range(7):
        road.enter("a", job(n))
    for expected in (4, 5, 6):
        road.leave("a", took_s=0.1)
        assert road.following("a") == job(expected)
        assert road.enter("a", job(expected))
    road.leave("a", took_s=0.1)
    assert road.following("a") is None


def test_a_delivery_told_again_waits_once() -> None:
    road = Lanes(100)
    for n in (0, 1, 2, 3, 4, 4, 4):
        road.enter("a", job(n))
    road.leave("a", took_s=0.1)
    assert road.following("a") == job(4)
    assert road.following("a") is None


def test_slow_hosts_share_half_of_the_slots() -> None:
    road = Lanes(8)
    for name in ("s1", "s2", "s3"):
        make_slow(road, name)
    entered = [road.enter(name, job(n)) for n, name in enumerate(["s1", "s2", "s3", "s1", "s2", "s3"])]
    assert entered == [True] * 4 + [False] * 2
    assert road.enter("new", job(7)), "a host that is not known to be slow has the other half"


def test_slow_hosts_take_turns() -> None:
    """One with many deliveries must not hold all lanes of the slow."""
    road = Lanes(2)
    make_slow(road, "many")
    make_slow(road, "one")
    assert road.enter("many", job(0))
    for n in (1, 2, 3):
        assert not road.enter("many", job(n))
    assert not road.enter("one", job(9))
    road.leave("many", took_s=SLOW_S)
    assert road.following("many") == job(9)


def test_a_host_that_answers_fast_again_is_slow_no_more() -> None:
    road = Lanes(2)
    make_slow(road, "a")
    make_slow(road, "b")
    assert road.enter("a", job(1))
    assert not road.enter("b", job(2))
    road.leave("a", took_s=0.1)
    assert road.following("a") == job(2)
    assert road.enter("b", job(2))
    assert road.enter("a", job(3))


def test_a_delivery_that_was_not_due_after_all_judges_no_host() -> None:
    road = Lanes(2)
    make_slow(road, "a")
    make_slow(road, "b")
    assert road.enter("a", job(1))
    road.leave("a", took_s=None)
    assert road.enter("a", job(1))
    assert not road.enter("b", job(2)), "a is slow still, and holds the one lane of the slow"


def test_what_is_kept_here_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "MOST_WAITING", 2)
    monkeypatch.setattr(lanes, "MOST_SLOW", 1)
    road = Lanes(100)
    for n in range(10):
        road.enter("a", job(n))
    make_slow(road, "x")
    make_slow(road, "y")
    assert list(road._slow) == ["y"]
    assert sum(map(len, road._waiting.values())) == 2


HOSTS = ("a", "b", "c", "d")
STEPS = st.lists(
    st.tuples(st.sampled_from(("enter", "leave")), st.sampled_from(HOSTS), st.sampled_from((0.1, 9.0, None))),
    max_size=300,
)


@given(STEPS, st.integers(1, 12))
def test_no_order_of_events_breaks_a_limit_or_leaves_somebody_waiting_beside_a_free_lane(
    steps: list[tuple[str, str, float | None]], slots: int
) -> None:
    road, inside, count = Lanes(slots), [], 0
    for step, host, took_s in steps:
        if step == "enter":
            count += 1
            if road.enter(host, job(count)):
                inside.append(host)
        elif host in inside:
            inside.remove(host)
            road.leave(host, took_s=took_s)
        busy = {name: inside.count(name) for name in HOSTS}
        assert max(busy.values()) <= PER_HOST
        assert road._slow_busy == sum(busy[name] for name in road._slow), "the books are right"
        assert road._waiting_count == sum(map(len, road._waiting.values()))
    while inside:
        host = inside.pop()
        road.leave(host, took_s=0.1)
        while (following := road.following(host)) is not None:
            where = next(name for name in HOSTS if road.enter(name, following))
            road.leave(where, took_s=0.1)
    assert not road._waiting
