"""Model calls against a real HTTP server: what is sent, what is understood, and every way in which it can fail."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import aiohttp
import pytest
from tests.fakes.model_server import ModelServer as FakeServer
from tests.fakes.model_server import Reply

from llm_service.errors import JobFailure, ModelRejected, ModelTimeout, ModelUnavailable
from llm_service.llm import open_llm
from llm_service.llm.anthropic import MessagesModel
from llm_service.llm.http import MAX_BODY, ModelServer
from llm_service.llm.model import Message, Model, ModelRequest
from llm_service.llm.openai import ChatModel
from llm_service.settings import Settings, load_settings

KEY = "sk-canary-5f3a9c"
PROMPT = "The canary sings in Brno."
SCHEMA = {
    "type": "object",
    "properties": {"town": {"type": "string"}},
    "required": ["town"],
    "additionalProperties": False,
}
REQUEST = ModelRequest(messages=(Message("system", "Be brief."), Message("user", PROMPT)))
STRUCTURED = ModelRequest(messages=REQUEST.messages, schema=SCHEMA, schema_name="Town")

Open = Callable[..., Model]


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as opened:
        yield opened


@pytest.fixture
def chat(session: aiohttp.ClientSession, model_server: FakeServer) -> Open:
    """An OpenAI model with short waits: `chat(timeout_s=...)`."""

    def opened(timeout_s: float = 10.0, url: str | None = None) -> ChatModel:
        return ChatModel(
            ModelServer(
                session,
                (url or model_server.url) + "/chat/completions",
                {"Authorization": f"Bearer {KEY}"},
                timeout_s=timeout_s,
                label="openai",
                first_wait_s=0.005,
            ),
            provider="openai",
            name="m-1",
        )

    return opened


@pytest.fixture
def claude(session: aiohttp.ClientSession, model_server: FakeServer) -> Open:
    def opened(timeout_s: float = 10.0) -> MessagesModel:
        server = ModelServer(
            session,
            model_server.url + "/messages",
            {"x-api-key": KEY},
            timeout_s=timeout_s,
            label="anthropic",
            first_wait_s=0.005,
        )
        return MessagesModel(server, name="c-1")

    return opened


def settings_for(server: FakeServer, model: str, **more: str) -> Settings:
    return load_settings(
        {
            "DATABASE_URL": "postgresql://localhost/none",
            "REDIS_URL": "redis://localhost/0",
            "LLM_SERVICE_API_SECRET": "0123456789abcdef",
            "LLM_SERVICE_MODEL": model,
            "OPENAI_BASE_URL": server.url + "/",
            "OPENROUTER_BASE_URL": server.url,
            "ANTHROPIC_BASE_URL": server.root,
            "OPENAI_API_KEY": KEY,
            "OPENROUTER_API_KEY": KEY,
            "ANTHROPIC_API_KEY": KEY,
        }
        | more
    )


# --- what is sent and understood --------------------------------------------------------------------------


@pytest.mark.parametrize("provider", ["openai", "openrouter"])
async def test_a_chat_completion_is_asked_for_and_understood(
    session: aiohttp.ClientSession, model_server: FakeServer, provider: str
) -> None:
    model_server.script = [Reply(text="Brno.", usage=(21, 4))]
    model = open_llm(settings_for(model_server, f"{provider}:some/model:free"), session)
    answer = await model.answer(REQUEST)
    assert model_server.headers[0]["Authorization"] == f"Bearer {KEY}"
    assert model_server.headers[0]["Content-Type"] == "application/json"
    assert model_server.requests == [
        {
            "model": "some/model:free",
            "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": PROMPT}],
        }
    ]
    assert (answer.text, answer.model, answer.retries) == ("Brno.", "some/model:free", 0)
    assert (answer.input_tokens, answer.output_tokens) == (21, 4)


async def test_a_chat_completion_with_a_schema_asks_for_strict_output(
    chat: Open, model_server: FakeServer
) -> None:
    answer = await chat().answer(STRUCTURED)
    assert model_server.requests[0]["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "Town", "schema": SCHEMA, "strict": True},
    }
    assert json.loads(answer.text) == {"town": "text"}


async def test_a_server_of_ones_own_needs_no_key(
    session: aiohttp.ClientSession, model_server: FakeServer
) -> None:
    model = open_llm(settings_for(model_server, "openai:local", OPENAI_API_KEY=""), session)
    await model.answer(REQUEST)
    assert "Authorization" not in model_server.headers[0]


async def test_a_message_is_asked_for_and_understood(
    session: aiohttp.ClientSession, model_server: FakeServer
) -> None:
    model_server.script = [Reply(text="Brno.", usage=(21, 4))]
    answer = await open_llm(settings_for(model_server, "anthropic:c-1"), session).answer(REQUEST)
    headers = {name.lower(): value for name, value in model_server.headers[0].items()}
    assert headers["x-api-key"] == KEY
    assert headers["anthropic-version"] == "2023-06-01"
    assert model_server.requests == [
        {
            "model": "c-1",
            "max_tokens": 4096,
            "system": "Be brief.",
            "messages": [{"role": "user", "content": PROMPT}],
        }
    ]
    assert (answer.text, answer.model) == ("Brno.", "c-1")
    assert (answer.input_tokens, answer.output_tokens) == (21, 4)


async def test_a_message_with_a_schema_asks_for_structured_output(
    claude: Open, model_server: FakeServer
) -> None:
    await claude().answer(STRUCTURED)
    assert model_server.requests[0]["output_config"] == {"format": {"type": "json_schema", "schema": SCHEMA}}


async def test_a_conversation_without_system_sends_none(claude: Open, model_server: FakeServer) -> None:
    await claude().answer(ModelRequest(messages=(Message("user", "Hi."),)))
    assert "system" not in model_server.requests[0]


async def test_the_text_blocks_of_a_message_are_joined(claude: Open, model_server: FakeServer) -> None:
    blocks = [
        {"type": "thinking", "thinking": "hm"},
        {"type": "text", "text": "Br"},
        {"type": "text", "text": "no"},
    ]
    model_server.script = [Reply(body=json.dumps({"content": blocks}).encode())]
    assert (await claude().answer(REQUEST)).text == "Brno"


async def test_tokens_that_are_not_said_are_not_known(
    chat: Open, claude: Open, model_server: FakeServer
) -> None:
    model_server.script = [Reply(text="Brno.", usage=None)]
    for model in (chat(), claude()):
        answer = await model.answer(REQUEST)
        assert (answer.input_tokens, answer.output_tokens) == (None, None)


@pytest.mark.parametrize("count", ["12", -1, 10**12, 1.5, {"all": 12}, None, True])
async def test_a_paid_answer_is_kept_when_its_token_count_is_nonsense(
    chat: Open, claude: Open, model_server: FakeServer, count: Any
) -> None:
    usage = {"prompt_tokens": count, "input_tokens": count, "completion_tokens": 7, "output_tokens": 7}
    both = {
        "choices": [{"message": {"content": "Brno."}}],
        "content": [{"type": "text", "text": "Brno."}],
        "usage": usage,
    }
    model_server.script = [Reply(body=json.dumps(both).encode())]
    for model in (chat(), claude()):
        answer = await model.answer(REQUEST)
        assert (answer.text, answer.input_tokens, answer.output_tokens) == ("Brno.", None, 7)


# --- failures that may pass -------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [500, 502, 503, 504, 520, 529])
async def test_a_server_error_is_tried_again(chat: Open, model_server: FakeServer, status: int) -> None:
    model_server.script = [Reply(status=status), Reply(status=status), Reply(text="Brno.")]
    answer = await chat().answer(REQUEST)
    assert (answer.text, answer.retries) == ("Brno.", 2)
    assert model_server.requests[0] == model_server.requests[2]


@pytest.mark.parametrize("status", [500, 502, 503])
async def test_a_server_that_stays_broken_is_tried_again_three_times(
    chat: Open, claude: Open, model_server: FakeServer, status: int
) -> None:
    model_server.script = [Reply(status=status, body=b"oops")]
    for model in (chat(), claude()):
        with pytest.raises(ModelUnavailable, match=f"HTTP {status}"):
            await model.answer(REQUEST)
    assert len(model_server.requests) == 8


async def test_a_connection_reset_is_tried_again(chat: Open, model_server: FakeServer) -> None:
    model_server.script = [Reply(reset=True), Reply(cut=True), Reply(text="Brno.")]
    answer = await chat().answer(REQUEST)
    assert (answer.text, answer.retries) == ("Brno.", 2)


async def test_connections_that_keep_breaking_are_unavailable(chat: Open, model_server: FakeServer) -> None:
    model_server.script = [Reply(reset=True), Reply(cut=True)]
    with pytest.raises(ModelUnavailable, match="connection failed"):
        await chat().answer(REQUEST)
    assert len(model_server.requests) == 4


async def test_a_refused_connection_is_unavailable(chat: Open) -> None:
    listener = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    listener.close()
    await listener.wait_closed()
    with pytest.raises(ModelUnavailable, match="connection failed"):
        await chat(url=f"http://127.0.0.1:{port}/v1").answer(REQUEST)


async def test_a_request_that_cannot_be_sent_is_rejected(chat: Open, model_server: FakeServer) -> None:
    with_credentials = model_server.url.replace("http://", f"http://user:{KEY}@")
    for url in (with_credentials, "http://[broken", "no-scheme"):
        with pytest.raises(ModelRejected, match="can't be sent") as caught:
            await chat(url=url).answer(REQUEST)
        assert "canary" not in caught.value.message
    assert model_server.requests == []


async def test_bytes_that_are_not_http_are_unavailable(chat: Open) -> None:
    async def babble(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"\x00\xff SSH-2.0 hello\r\n\r\n")
        writer.close()
        await writer.wait_closed()

    listener = await asyncio.start_server(babble, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    async with listener:
        with pytest.raises(ModelUnavailable, match="connection failed"):
            await chat(url=f"http://127.0.0.1:{port}/v1").answer(REQUEST)


def in_seconds() -> str:
    return "1"


def as_a_date() -> str:
    return format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)  # whole seconds: 1 to 2 s


@pytest.mark.parametrize("header", [in_seconds, as_a_date])
async def test_a_429_waits_as_long_as_it_is_told(
    chat: Open, model_server: FakeServer, header: Callable[[], str]
) -> None:
    model_server.choose = lambda _: (
        Reply(status=429, headers={"Retry-After": header()}) if len(model_server.requests) == 1 else None
    )
    answer = await chat().answer(REQUEST)
    assert answer.retries == 1
    first, second = model_server.arrived_at
    assert 0.9 < second - first < 5


async def test_calls_that_were_told_to_wait_alike_do_not_come_back_at_once(
    chat: Open, model_server: FakeServer
) -> None:
    calls = 40
    model_server.choose = lambda _: (
        Reply(status=429, headers={"Retry-After": "1"}) if len(model_server.requests) <= calls else None
    )
    model = chat()
    await asyncio.gather(*(model.answer(REQUEST) for _ in range(calls)))
    returns = sorted(model_server.arrived_at[calls:])
    assert returns[-1] - returns[0] > 0.3


@pytest.mark.parametrize("header", [None, "0", "soon", "Mon, 01 Jan 2024 00:00:00 GMT"])
async def test_a_429_is_tried_again_until_the_deadline_with_growing_waits(
    chat: Open, model_server: FakeServer, header: str | None
) -> None:
    model_server.script = [Reply(status=429, headers={"Retry-After": header} if header else {})]
    with pytest.raises(ModelTimeout, match="HTTP 429"):
        await chat(timeout_s=0.5).answer(REQUEST)
    # Without growing waits of at least 5 ms these would be hundreds.
    assert 4 < len(model_server.requests) < 20


@pytest.mark.parametrize("header", ["30", "Fri, 31 Dec 9999 23:59:59 GMT"])
async def test_a_wait_past_the_deadline_ends_at_the_deadline(
    chat: Open, model_server: FakeServer, header: str
) -> None:
    model_server.script = [Reply(status=429, headers={"Retry-After": header})]
    async with asyncio.timeout(5):
        with pytest.raises(ModelTimeout):
            await chat(timeout_s=0.2).answer(REQUEST)
    assert len(model_server.requests) == 1


async def test_429s_do_not_use_up_the_patience_with_server_errors(
    chat: Open, model_server: FakeServer
) -> None:
    model_server.script = [*[Reply(status=429)] * 4, *[Reply(status=503)] * 3, Reply(text="Brno.")]
    assert (await chat().answer(REQUEST)).retries == 7


# --- the deadline -----------------------------------------------------------------------------------------


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.005)


async def test_a_server_that_does_not_answer_is_given_up_at_the_deadline(
    chat: Open, model_server: FakeServer
) -> None:
    model_server.script = [Reply(latency_s=60)]
    async with asyncio.timeout(5):
        with pytest.raises(ModelTimeout, match=r"did not answer within 0\.2 s"):
            await chat(timeout_s=0.2).answer(REQUEST)
    await until(lambda: model_server.broken_off == 1)


async def test_a_slow_drip_ends_at_the_total_deadline_and_the_server_sees_it(
    chat: Open, model_server: FakeServer
) -> None:
    model_server.script = [Reply(drip_s=0.02)]
    async with asyncio.timeout(5):
        with pytest.raises(ModelTimeout):
            await chat(timeout_s=0.3).answer(REQUEST)
    assert model_server.sent_bytes > 2, "it was dripping, not silent"
    await until(lambda: model_server.broken_off == 1)
    assert len(model_server.requests) == 1


async def test_a_call_that_is_broken_off_closes_its_connection(chat: Open, model_server: FakeServer) -> None:
    model_server.script = [Reply(latency_s=60)]
    call = asyncio.create_task(chat().answer(REQUEST))
    await until(lambda: model_server.in_flight == 1)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await until(lambda: model_server.broken_off == 1)


# --- refusals ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422])
async def test_a_refusal_is_final_and_repeats_neither_key_nor_prompt(
    chat: Open, claude: Open, model_server: FakeServer, status: int
) -> None:
    error = {
        "message": f"Incorrect key {KEY} for: {PROMPT}",
        "type": "invalid_request_error",
        "code": KEY,
        "param": PROMPT,
    }
    model_server.script = [Reply(status=status, body=json.dumps({"error": error}).encode())]
    for number, model in enumerate((chat(), claude()), start=1):
        with pytest.raises(ModelRejected) as caught:
            await model.answer(REQUEST)
        assert len(model_server.requests) == number, "a refused request is not sent again"
        message = caught.value.message
        assert f"HTTP {status}" in message
        assert "invalid_request_error" in message
        assert "canary" not in message


async def test_a_429_says_why_when_the_provider_does(chat: Open, model_server: FakeServer) -> None:
    error = {"message": f"{KEY} {PROMPT}", "type": "rate_limit_exceeded"}
    model_server.script = [Reply(status=429, body=json.dumps({"error": error}).encode())]
    with pytest.raises(ModelTimeout, match="HTTP 429, rate_limit_exceeded") as caught:
        await chat(timeout_s=0.1).answer(REQUEST)
    assert "canary" not in caught.value.message


async def test_an_account_without_money_is_not_asked_again(chat: Open, model_server: FakeServer) -> None:
    error = {"message": f"{KEY} {PROMPT}", "type": "insufficient_quota"}
    model_server.script = [Reply(status=429, body=json.dumps({"error": error}).encode())]
    with pytest.raises(ModelRejected, match="HTTP 429, insufficient_quota"):
        await chat().answer(REQUEST)
    assert len(model_server.requests) == 1


async def test_calls_at_once_shrink_to_what_the_server_takes_and_all_are_answered(
    chat: Open, model_server: FakeServer
) -> None:
    """A server that takes five at a time and refuses the others, as rate limits by concurrency do."""
    takes, calls, refusals = 5, 60, 0

    def choose(_: object) -> Reply | None:
        nonlocal refusals
        if model_server.in_flight <= takes:
            return Reply(text="Brno.", latency_s=0.02)
        refusals += 1
        return Reply(status=429)

    model_server.choose = choose
    model = chat()
    answers = await asyncio.gather(*(model.answer(REQUEST) for _ in range(calls)))
    assert len(answers) == calls
    # Without a shrinking number of calls at once each would be refused again and again.
    assert refusals < 2.5 * calls
    model_server.choose = lambda _: Reply(text="Brno.", latency_s=0.02)
    model_server.most_in_flight = 0
    for _ in range(8):
        await asyncio.gather(*(model.answer(REQUEST) for _ in range(calls)))
    assert model_server.most_in_flight > 4 * takes, "and come back when it takes more"


async def test_nobody_calls_while_the_server_asked_to_be_left_alone(
    chat: Open, model_server: FakeServer
) -> None:
    model_server.script = [Reply(status=429, headers={"Retry-After": "1"}), Reply(text="Brno.")]
    model = chat()
    first = asyncio.create_task(model.answer(REQUEST))
    await until(lambda: len(model_server.requests) == 1 and model_server.in_flight == 0)
    await asyncio.gather(first, *(model.answer(REQUEST) for _ in range(5)))
    refused, *later = model_server.arrived_at
    assert len(later) == 6
    assert min(later) - refused > 0.9


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>no</html>",
        b'"error"',
        b"[]",
        b'{"error": "no"}',
        b'{"error": {"type": 3}}',
        b'{"error": {"type": "\xff"}}',
        b"[" * 100_000,
    ],
)
async def test_a_refusal_in_any_words_is_a_refusal(chat: Open, model_server: FakeServer, body: bytes) -> None:
    model_server.script = [Reply(status=400, body=body)]
    with pytest.raises(ModelRejected, match=r"HTTP 400\."):
        await chat().answer(REQUEST)


async def test_a_redirect_is_not_followed(chat: Open, model_server: FakeServer) -> None:
    model_server.script = [Reply(status=307, headers={"Location": model_server.url + "/messages"})]
    with pytest.raises(ModelRejected, match="HTTP 307"):
        await chat().answer(REQUEST)
    assert len(model_server.requests) == 1


def completion(message: dict[str, Any], **choice: Any) -> bytes:
    return json.dumps({"choices": [{"message": message, **choice}]}).encode()


@pytest.mark.parametrize(
    "body",
    [
        completion({"content": None, "refusal": f"I won't say: {PROMPT}"}),
        completion({"content": "The ca"}, finish_reason="content_filter"),
    ],
    ids=["refusal", "content_filter"],
)
async def test_a_model_that_refuses_is_a_rejection(chat: Open, model_server: FakeServer, body: bytes) -> None:
    model_server.script = [Reply(body=body)]
    with pytest.raises(ModelRejected, match="refused to answer") as caught:
        await chat().answer(REQUEST)
    assert PROMPT not in caught.value.message
    assert len(model_server.requests) == 1


async def test_a_claude_that_refuses_is_a_rejection(claude: Open, model_server: FakeServer) -> None:
    model_server.script = [Reply(text="", finish="refusal")]
    with pytest.raises(ModelRejected, match="refused to answer"):
        await claude().answer(REQUEST)
    assert len(model_server.requests) == 1


# --- answers that are none --------------------------------------------------------------------------------

MALFORMED = {
    "HTML": b"<html>Welcome to nginx!</html>",
    "nothing": b"",
    "cut JSON": b'{"choices": [',
    "not UTF-8": b'{"choices": [{"message": {"content": "\xff"}}]}',
    "lone surrogate": b'{"choices": [{"message": {"content": "\\ud800"}}], "content": [{"type": "text", "text": "\\ud800"}]}',
    "NaN": b'{"choices": NaN}',
    "huge number": b'{"choices": ' + b"9" * 5000 + b"}",
    "1e400": b'{"choices": 1e400}',
    "deep": b"[" * 100_000,
    "deep and closed": b"[" * 50_000 + b"]" * 50_000,
    "not gzip": b"not gzip",
    "null": b"null",
    "list": b"[]",
    "error in a 200": b'{"error": {"message": "overloaded"}}',
    "wrong types": b'{"choices": "many", "content": 3}',
    "empty choices": b'{"choices": [], "content": []}',
    "null choice": b'{"choices": [null], "content": [null]}',
    "no message": b'{"choices": [{}], "content": [{}]}',
    "null content": completion({"content": None}),
    "empty content": completion({"content": ""}),
    "content of parts": completion({"content": [{"text": "Brno"}]}),
    "only thinking": b'{"content": [{"type": "thinking", "thinking": "hm"}]}',
}


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED)
async def test_an_answer_that_is_none_is_unavailable(
    chat: Open, claude: Open, model_server: FakeServer, body: bytes
) -> None:
    headers = {"Content-Encoding": "gzip"} if body == b"not gzip" else {}
    model_server.script = [Reply(body=body, headers=headers)]
    for model in (chat(), claude()):
        with pytest.raises(ModelUnavailable) as caught:
            await model.answer(REQUEST)
        assert "canary" not in caught.value.message
    assert len(model_server.requests) <= 8


async def test_a_garbled_answer_is_asked_for_again(chat: Open, model_server: FakeServer) -> None:
    model_server.script = [Reply(body=b"<html>"), Reply(body=b'"\xff"'), Reply(text="Brno.")]
    assert (await chat().answer(REQUEST)).retries == 2


async def test_50_mb_are_cut_at_5(chat: Open, model_server: FakeServer) -> None:
    model_server.script = [Reply(body=b" " * 1024 * 1024, times=50)]
    with pytest.raises(ModelUnavailable, match="larger than 5 MB"):
        await chat().answer(REQUEST)
    tries = len(model_server.requests)
    assert tries == 4
    # What left the server and was not read waits in the sockets' buffers.
    assert model_server.sent_bytes < tries * (MAX_BODY + 16 * 1024 * 1024)


async def test_an_answer_of_almost_5_mb_is_read(chat: Open, model_server: FakeServer) -> None:
    text = "x" * (MAX_BODY - 1000)
    model_server.script = [Reply(body=completion({"content": text}), times=1)]
    assert (await chat().answer(REQUEST)).text == text


async def test_text_that_postgres_cannot_hold_passes_as_it_is(chat: Open, model_server: FakeServer) -> None:
    """The ledger mends it: `jobs.context.storable`."""
    model_server.script = [Reply(text="A\x00B")]
    assert (await chat().answer(REQUEST)).text == "A\x00B"


@pytest.mark.parametrize(
    "reply", [Reply(status=500, body=KEY.encode()), Reply(status=401, body=KEY.encode()), Reply(reset=True)]
)
async def test_every_failure_is_one_of_the_models(
    chat: Open, model_server: FakeServer, reply: Reply, caplog: pytest.LogCaptureFixture
) -> None:
    model_server.script = [reply]
    with pytest.raises(JobFailure) as caught:
        await chat().answer(REQUEST)
    shown = caught.value.message + repr(caught.value) + caplog.text
    assert "canary" not in shown
