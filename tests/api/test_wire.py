"""What is no request yet: heads, trailers and connections that do not end, byte for byte over a real socket."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator

import pytest
import structlog
import uvicorn
from tests.conftest import SECRET
from uvicorn.server import ServerState

from llm_service.api import wire
from llm_service.api.wire import LONGEST_URL, MOST_UNREAD, MOST_WAITING, BoundedProtocol
from llm_service.app import create_app
from llm_service.settings import Settings

PIECE = 4096
BEGUN = b"GET /health/live HTTP/1.1\r\nHost: test\r\n"
WORKFLOWS = b"GET /api/v1/workflows HTTP/1.1\r\nHost: test\r\nX-API-Secret: " + SECRET.encode() + b"\r\n"
VALIDATE = (
    b"POST /api/v1/workflow/validate HTTP/1.1\r\nHost: test\r\nX-API-Secret: " + SECRET.encode() + b"\r\n"
)
BODY = b'{"workflow_name":"completion","input_data":{"prompt":"Hello."}}'


@pytest.fixture
async def port(settings: Settings) -> AsyncIterator[int]:
    """The app behind the protocol that the command `api` serves it by."""
    config = uvicorn.Config(
        create_app(settings), http=BoundedProtocol, log_config=None, access_log=False, lifespan="off"
    )
    config.load()
    state = ServerState()
    server = await asyncio.get_running_loop().create_server(
        lambda: BoundedProtocol(config, state, {}), "127.0.0.1", 0
    )
    yield int(server.sockets[0].getsockname()[1])
    server.close()
    for connection in list(state.connections):
        connection.transport.close()


class Peer:
    """One connection. `answer` is what came until the server closed it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.sent = 0

    async def send(self, data: bytes) -> bool:
        """False when the server is gone."""
        try:
            self._writer.write(data)
            await self._writer.drain()
            await asyncio.sleep(0)
        except ConnectionError:
            return False
        self.sent += len(data)
        return not self._reader.at_eof()

    async def pour(self, piece: bytes, most: int = 8 * 2**20) -> None:
        """Send the same again and again, until the server is gone."""
        while self.sent < most and await self.send(piece):
            await asyncio.sleep(0.0005)

    async def answer(self, within_s: float = 10.0) -> bytes:
        async with asyncio.timeout(within_s):
            with contextlib.suppress(ConnectionError):
                return await self._reader.read()
        return b""

    async def until(self, text: bytes) -> bytes:
        async with asyncio.timeout(10):
            return await self._reader.readuntil(text)


@pytest.fixture
async def peer(port: int) -> AsyncIterator[Peer]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    yield Peer(reader, writer)
    writer.close()


# --- without end ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("begun", "piece"),
    [
        (BEGUN, b"X-N: a\r\n" * 512),
        (BEGUN + b"X-Long: ", b"a" * PIECE),
        (BEGUN + b"X", b"a" * PIECE),
        (b"GET /", b"a" * PIECE),
        (b"GET /?x=", b"a" * PIECE),
    ],
    ids=["headers", "value", "name", "path", "query"],
)
async def test_s42_a_head_that_does_not_end_is_given_up(peer: Peer, begun: bytes, piece: bytes) -> None:
    await peer.send(begun)
    await peer.pour(piece)
    assert peer.sent < 2**20, "what the sockets hold, and no more"


async def test_s42_a_head_that_is_given_up_is_431(peer: Peer) -> None:
    await peer.send(BEGUN)
    for _ in range(MOST_UNREAD // PIECE + 3):
        await peer.send(b"X-N: a\r\n" * 512)
        await asyncio.sleep(0.001)
    assert (await peer.answer()).startswith(b"HTTP/1.1 431 ")


@pytest.mark.parametrize("piece", [b"X-N: a\r\n" * 512, b"a" * PIECE], ids=["trailers", "value"])
async def test_s42_trailers_that_do_not_end_are_given_up(peer: Peer, piece: bytes) -> None:
    await peer.send(VALIDATE + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX-Long: " + piece)
    await peer.pour(piece)
    assert peer.sent < 2**20


@pytest.mark.parametrize(("size", "status"), [(LONGEST_URL, b"404"), (LONGEST_URL + 1, b"400")])
@pytest.mark.parametrize("begun", [b"/admin/static/", b"/admin?next=", b"/"])
async def test_s42_a_url_beyond_16_kb_is_400(peer: Peer, begun: bytes, size: int, status: bytes) -> None:
    """Of anybody: what is routed is remembered."""
    await peer.send(
        b"GET " + begun.ljust(size, b"a") + b" HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"
    )
    assert (await peer.answer()).startswith(b"HTTP/1.1 " + status)


@pytest.mark.parametrize(("ampersands", "status"), [(100, b"404"), (101, b"400")])
async def test_s42_a_url_of_many_parameters_is_400(peer: Peer, ampersands: int, status: bytes) -> None:
    await peer.send(
        b"GET /admin?a" + b"&a" * ampersands + b" HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"
    )
    assert (await peer.answer()).startswith(b"HTTP/1.1 " + status)


async def test_s42_what_ends_is_served_whatever_its_size(peer: Peer) -> None:
    """Headers of 60 KB in pieces, and a body of 60 KB that comes in chunks of one byte."""
    await peer.send(VALIDATE)
    for number in range(15):
        await peer.send(b"X-%d: " % number + b"a" * 4000 + b"\r\n")
        await asyncio.sleep(0.001)
    await peer.send(b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n")
    for byte in BODY + b" " * 60_000:
        await peer.send(b"1\r\n%c\r\n" % byte)
    await peer.send(b"0\r\n\r\n")
    assert (await peer.answer()).startswith(b"HTTP/1.1 200 ")


async def test_one_connection_serves_one_request_after_another_also_sent_at_once(peer: Peer) -> None:
    whole = VALIDATE + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY
    await peer.send(whole + WORKFLOWS[:20])
    assert (await peer.until(b'"valid":true')).startswith(b"HTTP/1.1 200 ")
    await peer.send(WORKFLOWS[20:] + b"\r\n" + whole + WORKFLOWS + b"Connection: close\r\n\r\n")
    assert (await peer.answer()).count(b"HTTP/1.1 200 ") == 3


async def test_s42_requests_far_ahead_of_their_answers_are_not_kept(peer: Peer) -> None:
    """One read brings thousands, each of which would wait with all that belongs to it."""
    with structlog.testing.capture_logs() as lines:
        await peer.send(b"GET /nothing HTTP/1.1\r\nHost:x\r\n\r\n" * 2_000)
        await peer.answer()
    assert len([line for line in lines if line["event"] == "request"]) <= MOST_WAITING + 1


async def test_what_is_a_little_ahead_is_served_in_order(peer: Peer) -> None:
    asked = b"".join(
        b"GET /%d HTTP/1.1\r\nHost:x\r\nX-Request-ID: n%d\r\n\r\n" % (n, n) for n in range(MOST_WAITING)
    )
    await peer.send(asked + WORKFLOWS + b"Connection: close\r\n\r\n")
    answer = await peer.answer()
    found = re.findall(rb"x-request-id: n(\d+)", answer)
    assert found == [b"%d" % n for n in range(MOST_WAITING)]
    assert b'{"workflows":' in answer


async def test_s42_broken_http_behind_a_request_is_not_taken_for_its_answer(peer: Peer) -> None:
    """Whoever shares a connection to us would take the 400 for the first answer that is due."""
    await peer.send(VALIDATE + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY + b"no http\r\n\r\n")
    assert b" 400 " not in await peer.answer()


# --- slowly -----------------------------------------------------------------------------------------------


async def test_s42_half_a_head_is_408(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of a second request: the first one has nothing to do with it."""
    monkeypatch.setattr(wire, "HEAD_S", 0.1)
    await peer.send(WORKFLOWS + b"\r\n")
    await peer.until(b"\r\n\r\n")
    await peer.send(WORKFLOWS)
    assert b"HTTP/1.1 408 " in await peer.answer()


async def test_s42_a_head_that_drips_is_given_up(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "HEAD_S", 0.1)
    await peer.send(WORKFLOWS + b"\r\n")
    await peer.until(b"\r\n\r\n")
    await peer.pour(b"G", most=10_000)
    assert peer.sent < 10_000


async def test_s42_who_says_nothing_is_hung_up_on(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "HEAD_S", 0.1)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    assert await Peer(reader, writer).answer() == b""
    writer.close()


async def test_a_body_may_take_longer_than_a_head(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "HEAD_S", 0.1)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    peer = Peer(reader, writer)
    await peer.send(VALIDATE + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(BODY))
    for letter in BODY:
        await peer.send(b"%c" % letter)
        await asyncio.sleep(0.005)
    assert (await peer.answer()).startswith(b"HTTP/1.1 200 ")
    writer.close()


async def test_s42_a_body_that_breaks_off_is_no_fault_of_ours(port: int) -> None:
    with structlog.testing.capture_logs() as lines:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(VALIDATE + b"Content-Length: 100\r\n\r\n" + BODY)
        await writer.drain()
        writer.close()
        async with asyncio.timeout(10):
            while not (ended := [line for line in lines if line["event"] == "request"]):
                await asyncio.sleep(0.01)
    assert [line["status"] for line in ended] == [400]
    assert lines == ended, "nothing that would wake an operator"


# --- trailers ---------------------------------------------------------------------------------------------


async def test_s01_a_secret_behind_the_body_is_none(peer: Peer) -> None:
    """A proxy that looks at headers does not see it, and the whole request may come in one read."""
    head = VALIDATE.replace(b"X-API-Secret: " + SECRET.encode() + b"\r\n", b"")
    await peer.send(
        head + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"%x\r\n%b\r\n0\r\nX-API-Secret: %b\r\n\r\n" % (len(BODY), BODY, SECRET.encode())
    )
    assert (await peer.answer()).startswith(b"HTTP/1.1 401 ")
