"""Which questions are known to have far more matches than a total counts to, and for how long."""

from datetime import UTC, datetime, timedelta

import pytest

from llm_service.jobs import crowds
from llm_service.jobs.crowds import TRUSTED_S, Crowds
from llm_service.jobs.filters import JobFilters
from llm_service.jobs.limit_results import LimitResults

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def within(text: str, now: datetime, **fields: object) -> JobFilters:
    return JobFilters(window=LimitResults.parse(text, now), **fields)  # type: ignore[arg-type]


def test_a_crowd_is_remembered_for_a_few_seconds_and_for_its_question_alone() -> None:
    clock = Clock()
    known = Crowds(clock)
    known.note(JobFilters(status="failed"))
    assert known.is_known(JobFilters(status="failed"))
    assert not known.is_known(JobFilters())
    assert not known.is_known(JobFilters(status="failed", username="jane"))
    clock.seconds = TRUSTED_S
    assert not known.is_known(JobFilters(status="failed"))


@pytest.mark.parametrize("text", ["Today", "7 Days", "30 Days"])
def test_a_window_that_has_moved_on_a_little_is_the_same_question_and_another_day_another(text: str) -> None:
    known = Crowds(Clock())
    known.note(within(text, NOON))
    assert known.is_known(within(text, NOON + timedelta(seconds=1)))
    assert not known.is_known(within(text, NOON + timedelta(days=1)))
    others = {"Today", "7 Days", "30 Days"} - {text}
    assert not any(known.is_known(within(other, NOON)) for other in others)


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crowds, "MOST", 10)
    known = Crowds(Clock())
    for number in range(35):
        known.note(JobFilters(username=str(number)))
    assert len(known._seen) <= 10
    assert known.is_known(JobFilters(username="34"))
