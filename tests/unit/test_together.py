"""Together: who asks at the same time is answered together, and one bad question fails alone."""

import asyncio
from collections.abc import Sequence

import pytest

from llm_service import together
from llm_service.errors import ServiceUnavailable
from llm_service.together import Together


class Doubling:
    """Answers with the double; notes each batch. Holds the first until it is let go, where it is told to."""

    def __init__(
        self, *, hold: bool = False, bad: Sequence[int] = (), error: Exception | None = None
    ) -> None:
        self.batches: list[list[int]] = []
        self.let_go = asyncio.Event()
        self._hold, self._bad, self._error = hold, bad, error

    async def answer_all(self, asked: Sequence[int]) -> list[int]:
        self.batches.append(list(asked))
        if self._hold:
            await self.let_go.wait()
        if self._error is not None:
            raise self._error
        if wrong := [number for number in asked if number in self._bad]:
            raise ValueError(wrong)
        return [2 * number for number in asked]


async def test_who_asks_in_the_same_moment_is_answered_together_and_in_order() -> None:
    doubling = Doubling()
    line = Together(doubling.answer_all)
    assert await asyncio.gather(*(line.ask(number) for number in range(50))) == list(range(0, 100, 2))
    assert doubling.batches == [list(range(50))]


async def test_who_asks_meanwhile_goes_with_the_next_batch() -> None:
    doubling = Doubling(hold=True)
    line = Together(doubling.answer_all)
    first = asyncio.create_task(line.ask(1))
    while not doubling.batches:
        await asyncio.sleep(0)
    later = [asyncio.create_task(line.ask(number)) for number in (2, 3)]
    await asyncio.sleep(0)
    assert len(line) == 2
    doubling.let_go.set()
    assert await asyncio.gather(first, *later) == [2, 4, 6]
    assert doubling.batches == [[1], [2, 3]]


async def test_a_batch_is_bounded_in_number_and_in_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    doubling = Doubling()
    await asyncio.gather(*map(Together(doubling.answer_all, most=4).ask, range(10)))
    assert [len(batch) for batch in doubling.batches] == [4, 4, 2]
    monkeypatch.setattr(together, "MOST_BYTES", 10)
    heavy = Doubling()
    await asyncio.gather(*map(Together(heavy.answer_all, weigh=lambda number: number).ask, (9, 9, 1, 50, 1)))
    assert heavy.batches == [[9, 9], [1, 50], [1]]


async def test_a_bad_question_fails_alone() -> None:
    doubling = Doubling(bad=[7, 20])
    line = Together(doubling.answer_all)
    answers = await asyncio.gather(*(line.ask(number) for number in range(32)), return_exceptions=True)
    wrong = {number: answer for number, answer in enumerate(answers) if answer != 2 * number}
    assert {number: answer.args for number, answer in wrong.items() if isinstance(answer, ValueError)} == {
        7: ([7],),
        20: ([20],),
    }
    assert len(wrong) == 2


async def test_when_the_database_is_away_all_are_told_and_it_is_not_asked_again() -> None:
    doubling = Doubling(error=ServiceUnavailable())
    line = Together(doubling.answer_all)
    answers = await asyncio.gather(*(line.ask(number) for number in range(8)), return_exceptions=True)
    assert all(isinstance(answer, ServiceUnavailable) for answer in answers)
    assert len(doubling.batches) == 1


async def test_who_leaves_the_line_is_not_asked_for() -> None:
    doubling = Doubling()
    line = Together(doubling.answer_all)
    leaves, stays = asyncio.create_task(line.ask(1)), asyncio.create_task(line.ask(2))
    await asyncio.sleep(0)
    leaves.cancel()
    assert await stays == 4
    assert doubling.batches == [[2]]


async def test_an_answer_that_nobody_waits_for_is_handed_over_before_closing_ends() -> None:
    left: list[int] = []

    async def keep(answer: int) -> None:
        left.append(answer)

    doubling = Doubling(hold=True)
    line = Together(doubling.answer_all, left_behind=keep)
    asked = asyncio.create_task(line.ask(21))
    while not doubling.batches:
        await asyncio.sleep(0)
    asked.cancel()
    closing = asyncio.create_task(line.close())
    await asyncio.sleep(0)
    assert not closing.done()
    doubling.let_go.set()
    await closing
    assert left == [42]


async def test_nobody_waits_longer_than_patience_lasts_and_who_came_later_waits_on() -> None:
    doubling = Doubling(hold=True)
    line = Together(doubling.answer_all, patience_s=0.1)
    aboard = asyncio.create_task(line.ask(1))
    while not doubling.batches:
        await asyncio.sleep(0)
    in_line = asyncio.create_task(line.ask(2))
    await asyncio.sleep(0.05)
    later = asyncio.create_task(line.ask(3))
    ends = await asyncio.gather(aboard, in_line, return_exceptions=True)
    assert [type(end) for end in ends] == [ServiceUnavailable] * 2
    assert not later.done()
    doubling.let_go.set()
    assert await later == 6
    assert doubling.batches == [[1], [3]]
    while line._timer is not None:  # the test ends by its own limit if it goes on for ever
        await asyncio.sleep(0.01)
