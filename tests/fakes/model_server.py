"""A model server on loopback that speaks OpenAI's chat completions and Anthropic's messages, and can misbehave.

Answers come from a script: each request takes the next entry, the last one is repeated. Without a script the
server answers a structured request with the least that fits its schema, and any other with an echo.
"""

import asyncio
import json
from collections.abc import Callable
from typing import Any, Self

import msgspec
from aiohttp import web


class Reply(msgspec.Struct, kw_only=True):
    """What one request gets. `text` is the model's answer; `body` replaces the whole HTTP body."""

    status: int = 200
    text: str | None = None
    body: bytes | None = None
    headers: dict[str, str] = {}
    latency_s: float = 0.0
    drip_s: float = 0.0
    """Seconds between single bytes of the body."""
    reset: bool = False
    """Close the connection instead of answering."""
    cut: bool = False
    """Close the connection in the middle of the body."""
    times: int = 1
    """How often the body is sent in a row; `sent_bytes` of the server counts what left."""
    finish: str | None = None
    """The finish_reason (stop_reason) in place of the ordinary one."""
    usage: tuple[int, int] | None = (11, 7)


class ModelServer:
    """`url` goes into OPENAI_BASE_URL (and ANTHROPIC_BASE_URL); `requests` holds every body that came."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.arrived_at: list[float] = []
        self.script: list[Reply] = []
        self.choose: Callable[[dict[str, Any]], Reply | None] = lambda _: None
        self.in_flight = 0
        self.most_in_flight = 0
        self.broken_off = 0
        self.sent_bytes = 0

    async def __aenter__(self) -> Self:
        application = web.Application()
        application.router.add_post("/v1/chat/completions", self._chat)
        application.router.add_post("/v1/messages", self._messages)
        self._runner = web.AppRunner(application, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        address = self._runner.addresses[0]
        self.root = f"http://127.0.0.1:{address[1]}"
        self.url = f"{self.root}/v1"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = await self._note(request)
        schema = body.get("response_format", {}).get("json_schema", {}).get("schema")
        return await self._answer(request, body, schema, _as_completion)

    async def _messages(self, request: web.Request) -> web.StreamResponse:
        body = await self._note(request)
        schema = body.get("output_config", {}).get("format", {}).get("schema")
        return await self._answer(request, body, schema, _as_message)

    async def _note(self, request: web.Request) -> dict[str, Any]:
        body: dict[str, Any] = await request.json()
        self.requests.append(body)
        self.headers.append(dict(request.headers))
        self.arrived_at.append(asyncio.get_running_loop().time())
        return body

    def _next(self, body: dict[str, Any]) -> Reply:
        if (chosen := self.choose(body)) is not None:
            return chosen
        if not self.script:
            return Reply()
        return self.script.pop(0) if len(self.script) > 1 else self.script[0]

    async def _answer(
        self,
        request: web.Request,
        body: dict[str, Any],
        schema: dict[str, Any] | None,
        shape: Callable[[str, Reply, dict[str, Any]], bytes],
    ) -> web.StreamResponse:
        reply = self._next(body)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await asyncio.sleep(reply.latency_s)
            if reply.reset:
                assert request.transport is not None
                request.transport.abort()
            text = reply.text
            if text is None:
                text = json.dumps(least(schema, schema)) if schema else f"echo: {_last_user(body)}"
            content = reply.body if reply.body is not None else shape(text, reply, body)
            return await self._send(request, reply, content)
        except (asyncio.CancelledError, ConnectionError):
            self.broken_off += 1
            raise
        finally:
            self.in_flight -= 1

    async def _send(self, request: web.Request, reply: Reply, content: bytes) -> web.StreamResponse:
        headers = {"Content-Type": "application/json", **reply.headers}
        if not (reply.drip_s or reply.cut or reply.times > 1):
            return web.Response(status=reply.status, body=content, headers=headers)
        response = web.StreamResponse(status=reply.status, headers=headers)
        response.content_length = len(content) * reply.times
        await response.prepare(request)
        if reply.cut:
            await response.write(content[: len(content) // 2])
            assert request.transport is not None
            request.transport.close()
        for part in [bytes([byte]) for byte in content] if reply.drip_s else [content] * reply.times:
            await response.write(part)
            self.sent_bytes += len(part)
            await asyncio.sleep(reply.drip_s)
        return response


def _as_completion(text: str, reply: Reply, body: dict[str, Any]) -> bytes:
    answer: dict[str, Any] = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "model": body.get("model"),
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": text},
                "finish_reason": reply.finish or "stop",
            }
        ],
    }
    if reply.usage is not None:
        answer["usage"] = {"prompt_tokens": reply.usage[0], "completion_tokens": reply.usage[1]}
    return json.dumps(answer).encode()


def _as_message(text: str, reply: Reply, body: dict[str, Any]) -> bytes:
    answer: dict[str, Any] = {
        "type": "message",
        "role": "assistant",
        "model": body.get("model"),
        "content": [{"type": "text", "text": text}],
        "stop_reason": reply.finish or "end_turn",
    }
    if reply.usage is not None:
        answer["usage"] = {"input_tokens": reply.usage[0], "output_tokens": reply.usage[1]}
    return json.dumps(answer).encode()


def _last_user(body: dict[str, Any]) -> str:
    return str(next(m["content"] for m in reversed(body["messages"]) if m["role"] == "user"))


def least(schema: Any, root: Any) -> Any:  # noqa: PLR0911 - one line for each kind of schema
    """The least value that fits a schema: one item in each list, the first of each choice."""
    if "$ref" in schema:
        return least(root["$defs"][schema["$ref"].rsplit("/", 1)[-1]], root)
    if "enum" in schema:
        return schema["enum"][0]
    if "anyOf" in schema:
        return least(schema["anyOf"][0], root)
    match schema.get("type"):
        case "object":
            return {name: least(inner, root) for name, inner in schema.get("properties", {}).items()}
        case "array":
            return [least(schema["items"], root)]
        case "integer" | "number":
            return schema.get("minimum", 1)
        case "boolean":
            return True
        case "null":
            return None
        case _:
            return "text"
