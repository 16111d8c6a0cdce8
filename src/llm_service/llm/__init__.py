"""Language models behind one call: a model string picks provider and model. There is no silent fallback."""

import aiohttp

from llm_service.errors import SettingsInvalid
from llm_service.llm.anthropic import VERSION, MessagesModel
from llm_service.llm.http import ModelServer
from llm_service.llm.model import Model
from llm_service.llm.offline import OfflineModel
from llm_service.llm.openai import ChatModel
from llm_service.llm.prices import Prices, load_price_list
from llm_service.settings import Secret, Settings

GRAMMAR = "offline, openai:<model>, anthropic:<model> or openrouter:<model>"
HOMES = {
    "openai": "https://api.openai.com/v1",
    "anthropic": "https://api.anthropic.com",
    "openrouter": "https://openrouter.ai/api/v1",
}
"""Where each provider lives. At another address it is a server of one's own that speaks the same."""


def open_llm(settings: Settings, session: aiohttp.ClientSession) -> Model:
    """The model that LLM_SERVICE_MODEL names.

    Raises `SettingsInvalid` for a string it does not know and for a provider without its key.
    """
    if settings.model == "offline":
        return OfflineModel()
    provider, _, name = settings.model.partition(":")
    if not name:
        raise SettingsInvalid(f"LLM_SERVICE_MODEL is {settings.model!r}; it must be {GRAMMAR}.")
    match provider:
        case "openai":
            needs_key = settings.openai_base_url == HOMES[provider]
            key = _key("OPENAI_API_KEY", settings.openai_api_key) if needs_key else settings.openai_api_key
            return _chat_model(settings, session, provider, name, settings.openai_base_url, key)
        case "openrouter":
            key = _key("OPENROUTER_API_KEY", settings.openrouter_api_key)
            return _chat_model(settings, session, provider, name, settings.openrouter_base_url, key)
        case "anthropic":
            key = _key("ANTHROPIC_API_KEY", settings.anthropic_api_key)
            headers = {"x-api-key": key.reveal(), "anthropic-version": VERSION}
            url = settings.anthropic_base_url + "/v1/messages"
            server = ModelServer(session, url, headers, timeout_s=settings.call_timeout, label=provider)
            return MessagesModel(server, name=name)
        case _:
            raise SettingsInvalid(
                f"LLM_SERVICE_MODEL names the unknown provider {provider!r}; it must be {GRAMMAR}."
            )


def _chat_model(
    settings: Settings,
    session: aiohttp.ClientSession,
    provider: str,
    name: str,
    base_url: str,
    key: Secret | None,
) -> ChatModel:
    headers = {"Authorization": f"Bearer {key.reveal()}"} if key is not None else {}
    url = base_url + "/chat/completions"
    server = ModelServer(session, url, headers, timeout_s=settings.call_timeout, label=provider)
    return ChatModel(server, provider=provider, name=name)


def _key(variable: str, key: Secret | None) -> Secret:
    if key is None:
        raise SettingsInvalid(f"{variable} is not set, and LLM_SERVICE_MODEL needs it.")
    return key


def open_prices(settings: Settings) -> Prices:
    """Prices for the model in use. A server of one's own may reuse a provider's name: only settings price it."""
    addresses = {
        "openai": settings.openai_base_url,
        "anthropic": settings.anthropic_base_url,
        "openrouter": settings.openrouter_base_url,
    }
    provider = settings.model.partition(":")[0]
    if provider not in HOMES or addresses[provider] != HOMES[provider]:
        return Prices(settings.prices)
    return Prices(settings.prices, load_price_list())


def check_model(settings: Settings) -> None:
    """Raise `SettingsInvalid` for a model string that could not be opened, without opening it."""
    open_llm(settings, session=None)  # type: ignore[arg-type] # nothing is sent
