"""The model `offline` as a provider among others: it extracts, counts and lists, and knows nothing."""

import msgspec

from llm_service.llm.model import ModelAnswer, ModelRequest, OnWait, unheard
from llm_service.llm.offline.facts import Facts
from llm_service.llm.offline.fill import fill
from llm_service.llm.offline.prose import answer_in_prose


class OfflineModel:
    """Answers from the caller's own words: the same request always gets the same answer.

    The facts are the last user message that is a JSON object, else the text of the last user message; system
    messages are not read, since it cannot follow instructions. A schema is filled with what was found, and
    what was not found is null, empty or zero. Readers know English cue words; other languages get the parts
    that need none (numbers, phones, lists, sentences). Only the first 20,000 characters are looked at.
    """

    provider = "offline"
    name = "offline"

    async def answer(self, request: ModelRequest, on_wait: OnWait = unheard) -> ModelAnswer:  # noqa: ARG002 - it never waits
        facts = Facts.read(request.messages)
        if request.schema is None:
            text = answer_in_prose(facts)
        else:
            text = msgspec.json.encode(fill(request.schema, facts)).decode()
        asked = sum(count_tokens(message.content) for message in request.messages)
        return ModelAnswer(text=text, model=self.name, input_tokens=asked, output_tokens=count_tokens(text))

    async def close(self) -> None:
        """Nothing is open."""


def count_tokens(text: str) -> int:
    """Estimate: four tokens for every three words, and never fewer than one for eight characters."""
    return max(-(-len(text.split()) * 4 // 3), len(text) // 8)
