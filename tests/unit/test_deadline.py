import asyncio

import pytest

from llm_service.deadline import Deadline


async def never() -> None:
    await asyncio.Event().wait()


async def test_what_ends_in_time_is_left_alone() -> None:
    async with Deadline(60):
        await asyncio.sleep(0)
    assert asyncio.current_task().cancelling() == 0  # type: ignore[union-attr]


async def test_what_does_not_end_is_a_timeout() -> None:
    with pytest.raises(TimeoutError):
        async with Deadline(0.01):
            await never()
    assert asyncio.current_task().cancelling() == 0  # type: ignore[union-attr]


async def test_a_polite_farewell_is_cut_short_as_well() -> None:
    farewells = 0

    async def work() -> None:
        nonlocal farewells
        try:
            await never()
        finally:
            farewells += 1
            await never()

    with pytest.raises(TimeoutError):
        async with Deadline(0.01):
            await work()
    assert farewells == 1


async def test_what_the_cancelled_work_makes_of_it_is_a_timeout_all_the_same() -> None:
    async def work() -> None:
        try:
            await never()
        except asyncio.CancelledError:
            raise ValueError("half an answer") from None

    with pytest.raises(TimeoutError) as caught:
        async with Deadline(0.01):
            await work()
    assert isinstance(caught.value.__cause__, ValueError)


async def test_an_error_before_the_end_stays_what_it_is() -> None:
    with pytest.raises(ValueError, match="mine"):
        async with Deadline(60):
            raise ValueError("mine")


async def test_a_cancellation_from_outside_stays_one() -> None:
    async def work() -> None:
        async with Deadline(60):
            await never()

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()
