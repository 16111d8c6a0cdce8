"""What a call cost: listed prices first, then the table of the extra, and None for what nobody knows."""

from decimal import Decimal

import pytest

from llm_service.llm import open_prices
from llm_service.llm.model import ModelAnswer
from llm_service.llm.prices import PriceList, Prices, load_price_list
from llm_service.settings import Settings, load_settings

LISTED = {"openai:mine": (0.1, 0.3)}


def answer(input_tokens: int | None = 1_000_000, output_tokens: int | None = 2_000_000) -> ModelAnswer:
    return ModelAnswer(
        text="x", model="as it calls itself", input_tokens=input_tokens, output_tokens=output_tokens
    )


def settings(model: str, **more: str) -> Settings:
    return load_settings(
        {
            "DATABASE_URL": "postgresql://localhost/none",
            "REDIS_URL": "redis://localhost/0",
            "LLM_SERVICE_API_SECRET": "0123456789abcdef",
            "LLM_SERVICE_MODEL": model,
        }
        | more
    )


@pytest.fixture(scope="module")
def table() -> PriceList:
    found = load_price_list()
    assert found is not None, "genai-prices is among the development packages"
    return found


def test_a_listed_price_is_exact() -> None:
    assert Prices(LISTED).cost_usd("openai", "mine", answer()) == Decimal("0.7")
    assert Prices(LISTED).cost_usd("openai", "mine", answer(1, 0)) == Decimal("0.0000001")


def test_a_free_model_costs_nothing_and_that_is_known() -> None:
    assert Prices({"openai:mine": (0, 0)}).cost_usd("openai", "mine", answer()) == 0


@pytest.mark.parametrize(("provider", "model"), [("openai", "other"), ("anthropic", "mine"), ("openai", "")])
def test_an_unknown_price_is_none(provider: str, model: str) -> None:
    assert Prices(LISTED).cost_usd(provider, model, answer()) is None


@pytest.mark.parametrize("tokens", [(None, 5), (5, None), (None, None)])
def test_unknown_tokens_are_an_unknown_cost(tokens: tuple[int | None, int | None], table: PriceList) -> None:
    prices = Prices(LISTED | {"openai:gpt-4o": (1.0, 1.0)}, table)
    for model in ("mine", "gpt-4o", "gpt-4o-mini"):
        assert prices.cost_usd("openai", model, answer(*tokens)) is None


def test_the_table_knows_a_known_model(table: PriceList) -> None:
    cost = Prices({}, table).cost_usd("openai", "gpt-4o-mini", answer(1_000_000, 1_000_000))
    assert isinstance(cost, Decimal)
    assert Decimal("0.1") < cost < Decimal(5)


@pytest.mark.parametrize("provider", ["openai", "anthropic", "openrouter", "nobody"])
def test_the_table_says_none_for_an_unknown_model(table: PriceList, provider: str) -> None:
    assert Prices({}, table).cost_usd(provider, "no-such-model-anywhere", answer()) is None


def test_a_listed_price_beats_the_table(table: PriceList) -> None:
    prices = Prices({"openai:gpt-4o-mini": (1000.0, 0.0)}, table)
    assert prices.cost_usd("openai", "gpt-4o-mini", answer()) == 1000


def test_zero_tokens_of_a_known_model_cost_nothing(table: PriceList) -> None:
    assert Prices({}, table).cost_usd("openai", "gpt-4o-mini", answer(0, 0)) == 0


@pytest.mark.parametrize(
    ("chosen", "model"),
    [
        (settings("openai:gpt-4o-mini"), "gpt-4o-mini"),
        (settings("openai:gpt-4o-mini", OPENAI_BASE_URL="https://api.openai.com/v1/"), "gpt-4o-mini"),
        (settings("anthropic:claude-3-5-haiku-latest"), "claude-3-5-haiku-latest"),
    ],
)
def test_a_providers_own_server_is_priced_by_the_table(chosen: Settings, model: str) -> None:
    assert open_prices(chosen).cost_usd(chosen.model.split(":")[0], model, answer()) is not None


@pytest.mark.parametrize(
    "chosen",
    [
        settings("openai:gpt-4o-mini", OPENAI_BASE_URL="http://localhost:11434/v1"),
        settings("anthropic:claude-3-5-haiku-latest", ANTHROPIC_BASE_URL="http://localhost:4000"),
        settings("openrouter:openai/gpt-4o-mini", OPENROUTER_BASE_URL="http://localhost:4000/v1"),
        settings("offline"),
    ],
    ids=lambda chosen: chosen.model,
)
def test_a_server_of_ones_own_is_never_priced_by_the_table(chosen: Settings) -> None:
    provider, _, model = chosen.model.partition(":")
    prices = open_prices(chosen)
    for name in (model, "gpt-4o-mini"):
        assert prices.cost_usd(provider, name, answer()) is None
        assert prices.cost_usd("openai", name, answer()) is None


def test_a_server_of_ones_own_is_priced_by_the_settings() -> None:
    own = settings(
        "openai:gpt-4o-mini",
        OPENAI_BASE_URL="http://localhost:11434/v1",
        LLM_SERVICE_PRICES='{"openai:gpt-4o-mini": [0.5, 1.5]}',
    )
    assert open_prices(own).cost_usd("openai", "gpt-4o-mini", answer()) == Decimal("3.5")
