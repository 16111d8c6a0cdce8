"""Which model a model string names, and what is said of one that names none."""

from typing import cast

import aiohttp
import pytest

from llm_service.errors import SettingsInvalid
from llm_service.llm import check_model, open_llm
from llm_service.llm.anthropic import MessagesModel
from llm_service.llm.model import Model
from llm_service.llm.offline import OfflineModel
from llm_service.llm.openai import ChatModel
from llm_service.settings import load_settings

UNUSED = cast(aiohttp.ClientSession, None)
KEYS = dict.fromkeys(("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "OPENROUTER_API_KEY"), "sk-0123456789abcdef")


def opened(model: str, **more: str) -> Model:
    environment = {
        "DATABASE_URL": "postgresql://localhost/none",
        "REDIS_URL": "redis://localhost/0",
        "LLM_SERVICE_API_SECRET": "0123456789abcdef",
        "LLM_SERVICE_MODEL": model,
    }
    settings = load_settings(environment | more)
    check_model(settings)
    return open_llm(settings, UNUSED)


@pytest.mark.parametrize(
    ("model", "kind", "provider", "name"),
    [
        ("openai:gpt-4o-mini", ChatModel, "openai", "gpt-4o-mini"),
        ("openai:ft:gpt-4o:acme::7", ChatModel, "openai", "ft:gpt-4o:acme::7"),
        ("openrouter:meta/llama-3:free", ChatModel, "openrouter", "meta/llama-3:free"),
        ("anthropic:claude-x", MessagesModel, "anthropic", "claude-x"),
    ],
)
def test_a_model_string_names_provider_and_model(model: str, kind: type, provider: str, name: str) -> None:
    found = opened(model, **KEYS)
    assert isinstance(found, kind)
    assert (found.provider, found.name) == (provider, name)


def test_offline_needs_no_key() -> None:
    assert isinstance(opened("offline"), OfflineModel)


@pytest.mark.parametrize(
    "model",
    [
        "gpt-4o",
        "openai",
        "openai:",
        "openai: ",
        "anthropic:",
        "openrouter:",
        "Offline",
        "offline:x",
        "offline2",
        ":",
        ":x",
        "mistral:large",
        "OpenAI:gpt-4o",
        "openai/gpt-4o",
    ],
)
def test_a_string_that_names_no_model_is_refused_with_the_grammar(model: str) -> None:
    with pytest.raises(SettingsInvalid, match=r"^LLM_SERVICE_MODEL") as caught:
        opened(model, **KEYS)
    assert "openai:<model>, anthropic:<model> or openrouter:<model>" in caught.value.message
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("model", "variable"),
    [
        ("openai:m", "OPENAI_API_KEY"),
        ("anthropic:m", "ANTHROPIC_API_KEY"),
        ("openrouter:m", "OPENROUTER_API_KEY"),
    ],
)
def test_a_missing_key_is_named(model: str, variable: str) -> None:
    for left_out in ({}, {variable: " "}):
        others = {name: key for name, key in KEYS.items() if name != variable}
        with pytest.raises(SettingsInvalid, match=f"^{variable} is not set"):
            opened(model, **others, **left_out)


def test_openai_itself_needs_its_key_however_its_address_is_written() -> None:
    with pytest.raises(SettingsInvalid, match=r"^OPENAI_API_KEY"):
        opened("openai:m", OPENAI_BASE_URL="https://api.openai.com/v1/")


def test_a_compatible_server_needs_none() -> None:
    assert opened("openai:m", OPENAI_BASE_URL="http://localhost:11434/v1").provider == "openai"
