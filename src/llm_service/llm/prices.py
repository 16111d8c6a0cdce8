"""What a call cost in USD, where that is known: from LLM_SERVICE_PRICES, else from the extra `prices`."""

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

from llm_service.llm.model import ModelAnswer

MILLION = Decimal(1_000_000)
PriceList = Callable[[str, str, int, int], Decimal | None]


class Prices:
    """`listed` names models as `provider:model` with USD per million input and output tokens."""

    def __init__(
        self, listed: Mapping[str, tuple[float, float]], price_list: PriceList | None = None
    ) -> None:
        self._listed = {
            name: (Decimal(str(price_in)), Decimal(str(price_out)))
            for name, (price_in, price_out) in listed.items()
        }
        self._price_list = price_list

    def cost_usd(self, provider: str, model: str, answer: ModelAnswer) -> Decimal | None:
        """None where the price or the number of tokens is not known; never 0 for unknown."""
        if answer.input_tokens is None or answer.output_tokens is None:
            return None
        if (listed := self._listed.get(f"{provider}:{model}")) is not None:
            return (answer.input_tokens * listed[0] + answer.output_tokens * listed[1]) / MILLION
        if self._price_list is None:
            return None
        return self._price_list(provider, model, answer.input_tokens, answer.output_tokens)


def load_price_list() -> PriceList | None:
    """The offline table of the extra `prices`; None where it is not installed. Takes about a second: at start."""
    try:
        from genai_prices import Usage, calc_price  # noqa: PLC0415 - an extra
    except ModuleNotFoundError:
        return None

    def look_up(provider: str, model: str, input_tokens: int, output_tokens: int) -> Decimal | None:
        usage: Any = Usage(input_tokens=input_tokens, output_tokens=output_tokens)
        try:
            return calc_price(usage, model_ref=model, provider_id=provider).total_price
        except LookupError:
            return None

    return look_up
