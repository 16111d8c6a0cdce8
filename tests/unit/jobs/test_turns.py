from datetime import UTC, datetime, timedelta

from llm_service.jobs.turns import MOST, MOST_USERS, STEP, Turns

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
NOTHING = timedelta(0)


def test_each_job_of_a_flood_is_one_step_further_behind() -> None:
    turns = Turns()
    assert [turns.take("a", NOW) for _ in range(3)] == [NOTHING, STEP, 2 * STEP]


def test_another_user_is_not_behind() -> None:
    turns = Turns()
    for _ in range(500):
        turns.take("a", NOW)
    assert turns.take("b", NOW) == NOTHING


def test_a_flood_is_never_further_behind_than_the_most() -> None:
    turns = Turns()
    assert max(turns.take("a", NOW) for _ in range(5_000)) == MOST


def test_who_hands_in_slowly_is_never_behind() -> None:
    turns = Turns()
    assert {turns.take("a", NOW + n * STEP) for n in range(100)} == {NOTHING}


def test_a_flood_is_forgotten_as_time_goes_by() -> None:
    turns = Turns()
    for _ in range(10):
        turns.take("a", NOW)
    assert turns.take("a", NOW + 10 * STEP) == NOTHING


def test_nobodys_jobs_are_not_taken_for_those_of_one_user() -> None:
    turns = Turns()
    assert [turns.take(None, NOW) for _ in range(3)] == [NOTHING] * 3


def test_memory_of_many_users_is_bounded_and_floods_outlast_it() -> None:
    turns = Turns()
    for _ in range(100):
        turns.take("flood", NOW)
    for number in range(3 * MOST_USERS):
        turns.take(number, NOW + timedelta(seconds=number / MOST_USERS))
    assert len(turns._next) <= MOST_USERS
    assert turns.take("flood", NOW + timedelta(seconds=3)) > 50 * STEP
