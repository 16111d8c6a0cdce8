"""What a workflow is: typed input, typed output, and an async function that asks the model step by step."""

from collections.abc import Awaitable, Callable
from typing import Any, Generic, Protocol, TypeVar

import msgspec

I = TypeVar("I", bound=msgspec.Struct)  # noqa: E741 - input
O = TypeVar("O", bound=msgspec.Struct)  # noqa: E741 - output
T = TypeVar("T", bound=msgspec.Struct)


class Context(Protocol):
    """What a running workflow may do: ask the model. Every step has a name, unique within the job.

    A step that was answered before is not asked (nor paid) again when the job is attempted anew, so a
    workflow must give the same step the same name in each attempt, and must not depend on chance or time.
    """

    async def text(self, step: str, *, system: str, user: str) -> str:
        """Ask for plain text."""
        ...

    async def fill(self, step: str, *, system: str, user: str, into: type[T]) -> T:
        """Ask for a structured answer; one that breaks the schema gets one repair round.

        Raises `OutputValidationError` when the repaired answer breaks it too.
        """
        ...


class Workflow(msgspec.Struct, Generic[I, O], frozen=True, kw_only=True):
    """One entry of the registry.

    `calls` estimates how many model calls an input will take, repairs and retries not counted.
    """

    name: str
    description: str
    version: str
    input_type: type[I]
    output_type: type[O]
    run: Callable[[I, Context], Awaitable[O]]
    calls: Callable[[I], int]

    def input_schema(self) -> dict[str, Any]:
        return msgspec.json.schema(self.input_type)

    def output_schema(self) -> dict[str, Any]:
        return msgspec.json.schema(self.output_type)
