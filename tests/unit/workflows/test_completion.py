"""completion: the prompt is the user's message, the system text the caller's or ours."""

from typing import Any

import msgspec
import pytest

from llm_service.workflows.completion import WORKFLOW, CompletionRequest
from llm_service.workflows.prompts import read_prompt

PROMPT = (
    "Summarise in one sentence: The river reached 4.2 m at noon. It rained. Buses leave at 15:30 from Brno."
)


async def test_the_prompt_is_sent_unchanged_as_the_users_message(context: Any) -> None:
    answer = await WORKFLOW.run(CompletionRequest(prompt=PROMPT, system="Be brief."), context)
    sent = context.requests["completion"].messages
    assert [(message.role, message.content) for message in sent] == [
        ("system", "Be brief."),
        ("user", PROMPT),
    ]
    assert answer.text.startswith("The river reached 4.2 m at noon.")


async def test_without_a_system_text_there_is_a_default(context: Any) -> None:
    await WORKFLOW.run(CompletionRequest(prompt=PROMPT), context)
    assert context.requests["completion"].messages[0].content == read_prompt("completion")


def test_an_empty_prompt_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"prompt": ""}, CompletionRequest)


def test_it_takes_one_call() -> None:
    assert WORKFLOW.calls(CompletionRequest(prompt="x")) == 1
