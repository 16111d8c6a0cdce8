"""OpenAI-compatible chat completions: OpenAI itself, OpenRouter, and any server behind OPENAI_BASE_URL."""

from typing import Any

import msgspec

from llm_service.errors import ModelRejected, ModelUnavailable
from llm_service.llm.http import ModelServer
from llm_service.llm.model import ModelAnswer, ModelRequest, OnWait, token_count, unheard


class _Message(msgspec.Struct):
    content: str | None = None
    refusal: str | None = None


class _Choice(msgspec.Struct):
    message: _Message
    finish_reason: str | None = None


class _Completion(msgspec.Struct):
    choices: list[_Choice]
    model: str | None = None
    usage: Any = None


class ChatModel:
    """A model by name on one server."""

    def __init__(self, server: ModelServer, *, provider: str, name: str) -> None:
        self.provider = provider
        self.name = name
        self._server = server

    async def answer(self, request: ModelRequest, on_wait: OnWait = unheard) -> ModelAnswer:
        raw, retries = await self._server.post(self._payload(request), on_wait)
        try:
            completion = msgspec.convert(raw, _Completion)
        except msgspec.ValidationError as error:
            raise ModelUnavailable(f"{self.provider} answered no chat completion: {error}.") from None
        if not completion.choices:
            raise ModelUnavailable(f"{self.provider} answered no choices.")
        message = completion.choices[0].message
        if message.refusal or completion.choices[0].finish_reason == "content_filter":
            raise ModelRejected(f"{self.provider}: the model refused to answer.")
        if not message.content:
            raise ModelUnavailable(f"{self.provider} answered no text.")
        return ModelAnswer(
            text=message.content,
            model=completion.model or self.name,
            input_tokens=token_count(completion.usage, "prompt_tokens"),
            output_tokens=token_count(completion.usage, "completion_tokens"),
            retries=retries,
        )

    def _payload(self, request: ModelRequest) -> dict[str, Any]:
        payload: dict[str, Any] = {"model": self.name, "messages": request.messages}
        if request.schema is not None:
            payload["response_format"] = {
                "type": "json_schema",
                "json_schema": {"name": request.schema_name, "schema": request.schema, "strict": True},
            }
        return payload
