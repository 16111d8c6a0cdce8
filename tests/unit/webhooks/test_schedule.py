"""When a delivery is tried again."""

import random

import pytest

from llm_service.webhooks.schedule import next_delay_s


@pytest.mark.parametrize(
    ("tries", "least"), [(1, 5), (2, 15), (3, 45), (4, 300), (5, 1800), (6, 7200), (7, 18_000), (8, 36_000)]
)
def test_the_delays_are_those_of_the_contract_and_up_to_a_fifth_more(tries: int, least: float) -> None:
    delays = {next_delay_s(tries, chance=random.Random(seed)) for seed in range(50)}
    assert len(delays) > 40, "receivers of one outage must not all come back at one moment"
    assert all(delay is not None and least <= delay <= least * 1.2 for delay in delays)


def test_after_the_ninth_try_there_is_none() -> None:
    assert next_delay_s(9, chance=random.Random(1)) is None


def test_retry_after_lengthens_a_delay_up_to_an_hour_and_never_shortens_it() -> None:
    chance = random.Random(1)
    assert next_delay_s(1, 60.0, chance=chance) == 60.0
    assert next_delay_s(1, 86_400.0, chance=chance) == 3600.0
    assert (next_delay_s(4, 1.0, chance=chance) or 0) >= 300
