"""How much, how slowly and how far ahead a peer may send. uvicorn alone keeps what it is sent without end."""

from asyncio import TimerHandle, Transport
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from llm_service.api.packets import Joining

MOST_UNREAD = 64 * 1024
"""Bytes that may come, beyond one read from the socket, before a head ends, a body begins or goes on, or it ends."""
LONGEST_URL = 16 * 1024
MOST_PARAMETERS = 100
"""Litestar remembers the last thousand paths and query strings, whoever sent them, and what it made of them."""
MOST_WAITING = 32
"""Requests of one connection that wait for the answer to one before. One read may bring ten thousand."""
HEAD_S = 20.0
"""Seconds from a head's beginning, or that of the connection, to its end."""

TOO_LARGE = b"431 Request Header Fields Too Large"
TOO_SLOW = b"408 Request Timeout"


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's protocol, which gives up on heads and trailers that do not end, and reads no trailer as a header."""

    _is_head = True
    _has_moved = False
    _unread = 0
    _deadline: TimerHandle | None = None

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        super().connection_made(Joining(transport, self.loop))  # type: ignore[arg-type]
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._have_head()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._has_moved = False
        super().data_received(data)
        if self._is_head:
            self._expect_head()
        self._unread = 0 if self._has_moved else self._unread + len(data)
        if self._unread > MOST_UNREAD:
            self._give_up(TOO_LARGE)

    def on_message_begin(self) -> None:
        self._has_moved = self._is_head = True
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._is_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._has_moved = True
        self._have_head()
        if self._is_too_much():
            raise ValueError("too much")  # to uvicorn this is broken HTTP: 400
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._has_moved = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._has_moved = True
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        if self._is_answering():
            self.transport.abort()
            return
        super().send_400_response(msg)

    def _is_too_much(self) -> bool:
        long = len(self.url) > LONGEST_URL or self.url.count(b"&") > MOST_PARAMETERS
        return long or len(self.pipeline) >= MOST_WAITING

    def _is_answering(self) -> bool:
        """Whether what is sent now would be taken for the answer to an earlier request."""
        cycle: Any = self.cycle  # None before the first request
        return cycle is not None and not cycle.response_complete

    def _expect_head(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(HEAD_S, self._give_up, TOO_SLOW)

    def _have_head(self) -> None:
        self._is_head = False
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _give_up(self, status: bytes) -> None:
        if self.transport.is_closing():
            return
        begun: Any = self.scope  # None before the first byte of a request
        if self._is_head and begun is not None and not self._is_answering():
            self.transport.write(
                b"HTTP/1.1 " + status + b"\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
            )
        self.transport.close()
