"""What a language model is to this service: a request, an answer, and the ways it can fail."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, Protocol

import msgspec


class Message(msgspec.Struct, frozen=True):
    role: Literal["system", "user", "assistant"]
    content: str


class ModelRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One call: the conversation so far and, for a structured answer, the shape it must have.

    `schema` is a JSON Schema whose root is an object with every property required (strict mode);
    None asks for plain text.
    """

    messages: tuple[Message, ...]
    schema: dict[str, Any] | None = None
    schema_name: str = "answer"
    max_output_tokens: int = 4096


class ModelAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What came back. Token counts are the provider's own; None where it did not say."""

    text: str
    model: str
    input_tokens: int | None = None
    output_tokens: int | None = None
    retries: int = 0


MOST_TOKENS = 100_000_000
"""Far above any context window; a count past it is nonsense, and its sums would not fit a column."""


def token_count(usage: Any, name: str) -> int | None:
    """A count as the provider said it, from its decoded `usage`; None where it said none, or nonsense."""
    count = usage.get(name) if isinstance(usage, dict) else None
    if isinstance(count, bool) or not isinstance(count, int):
        return None
    return count if 0 <= count <= MOST_TOKENS else None


class Wait(NamedTuple):
    """A call has failed in a way that may pass, and is made again. `seconds` is None for a growing short wait."""

    failures: int
    reason: str
    seconds: float | None


OnWait = Callable[[Wait], None]


def unheard(_: Wait) -> None:
    """For callers that do not care why a call takes long."""


class Model(Protocol):
    """A provider and a model behind one call. `answer` raises the `Model*` errors of `errors.py`."""

    provider: str
    name: str

    async def answer(self, request: ModelRequest, on_wait: OnWait = unheard) -> ModelAnswer: ...
