"""In how many packets an answer leaves."""

from asyncio import AbstractEventLoop, Transport
from typing import Any


class Joining:
    """A transport that sends what is written in one turn of the loop at once.

    uvicorn writes the head of an answer and then its body: two packets, and the peer is woken twice.
    """

    def __init__(self, transport: Transport, loop: AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._written: list[bytes] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        if not self._written:
            self._loop.call_soon(self._send)
        self._written.append(data)

    def close(self) -> None:
        self._send()
        self._transport.close()

    def _send(self) -> None:
        if self._written:
            self._transport.write(b"".join(self._written))
            self._written.clear()
