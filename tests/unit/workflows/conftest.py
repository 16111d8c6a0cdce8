"""A Context over the offline model: the same schema, decoding and names of steps as in a real run."""

from typing import TypeVar

import msgspec
import pytest

from llm_service.llm.model import Message, ModelRequest
from llm_service.llm.offline import OfflineModel
from llm_service.llm.schema import strict_schema

T = TypeVar("T", bound=msgspec.Struct)


class OfflineContext:
    """Keeps every request by its step's name; asking one step twice is an error."""

    def __init__(self) -> None:
        self.model = OfflineModel()
        self.requests: dict[str, ModelRequest] = {}

    async def text(self, step: str, *, system: str, user: str) -> str:
        return await self._ask(step, ModelRequest(messages=_messages(system, user)))

    async def fill(self, step: str, *, system: str, user: str, into: type[T]) -> T:
        request = ModelRequest(messages=_messages(system, user), schema=strict_schema(into))
        return msgspec.json.decode(await self._ask(step, request), type=into)

    async def _ask(self, step: str, request: ModelRequest) -> str:
        assert step not in self.requests, f"{step} was asked twice"
        self.requests[step] = request
        return (await self.model.answer(request)).text


def _messages(system: str, user: str) -> tuple[Message, ...]:
    return Message("system", system), Message("user", user)


@pytest.fixture
def context() -> OfflineContext:
    return OfflineContext()
