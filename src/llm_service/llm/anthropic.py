"""Anthropic's messages API."""

from typing import Any

import msgspec

from llm_service.errors import ModelRejected, ModelUnavailable
from llm_service.llm.http import ModelServer
from llm_service.llm.model import ModelAnswer, ModelRequest, OnWait, token_count, unheard

VERSION = "2023-06-01"


class _Block(msgspec.Struct):
    type: str
    text: str = ""


class _Message(msgspec.Struct):
    content: list[_Block]
    model: str | None = None
    stop_reason: str | None = None
    usage: Any = None


class MessagesModel:
    """A Claude model by name."""

    provider = "anthropic"

    def __init__(self, server: ModelServer, *, name: str) -> None:
        self.name = name
        self._server = server

    async def answer(self, request: ModelRequest, on_wait: OnWait = unheard) -> ModelAnswer:
        raw, retries = await self._server.post(self._payload(request), on_wait)
        try:
            message = msgspec.convert(raw, _Message)
        except msgspec.ValidationError as error:
            raise ModelUnavailable(f"anthropic answered no message: {error}.") from None
        if message.stop_reason == "refusal":
            raise ModelRejected("anthropic: the model refused to answer.")
        text = "".join(block.text for block in message.content if block.type == "text")
        if not text:
            raise ModelUnavailable("anthropic answered no text.")
        return ModelAnswer(
            text=text,
            model=message.model or self.name,
            input_tokens=token_count(message.usage, "input_tokens"),
            output_tokens=token_count(message.usage, "output_tokens"),
            retries=retries,
        )

    def _payload(self, request: ModelRequest) -> dict[str, Any]:
        spoken = [message for message in request.messages if message.role != "system"]
        system = "\n\n".join(message.content for message in request.messages if message.role == "system")
        payload: dict[str, Any] = {
            "model": self.name,
            "max_tokens": request.max_output_tokens,
            "messages": spoken,
        }
        if system:
            payload["system"] = system
        if request.schema is not None:
            payload["output_config"] = {"format": {"type": "json_schema", "schema": request.schema}}
        return payload
