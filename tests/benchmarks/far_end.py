"""The model server and webhook receiver of the benchmark: `python -m tests.benchmarks.far_end`, prints its port.

One process, raw HTTP on uvloop: some 20 microseconds a request, so that it is never what is measured.
`/model/<ms>/v1/chat/completions` answers after so many milliseconds; anything else that is posted is a webhook.
`/wait?calls=N&hooks=M` answers as soon as so many came (or after 5 s), with what was seen; `/reset` forgets it.
Times are those of the machine's monotonic clock, which other processes read as well.
"""

import asyncio
import json
import time
from typing import Any
from urllib.parse import parse_qs, urlsplit

import uvloop
from httptools import HttpRequestParser, parse_url

ANSWER = json.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "model": "fake",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "The crew checked every sensor and rested. " * 4},
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 60, "completion_tokens": 40},
    }
).encode()


def http(body: bytes) -> bytes:
    return (
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    )


class Seen:
    def __init__(self) -> None:
        self.waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self.forget()

    def forget(self) -> None:
        self.calls = self.answers = self.hooks = self.most_in_flight = 0
        self.first_call = self.last_call = self.last_answer = self.last_hook = 0.0

    def call(self) -> None:
        self.last_call = time.monotonic()
        self.first_call = self.first_call or self.last_call
        self.calls += 1
        self.most_in_flight = max(self.most_in_flight, self.calls - self.answers)
        self.ring()

    def answer(self) -> None:
        self.answers += 1
        self.last_answer = time.monotonic()

    def hook(self) -> None:
        self.hooks += 1
        self.last_hook = time.monotonic()
        self.ring()

    def ring(self) -> None:
        for calls, hooks, future in self.waiting:
            if self.calls >= calls and self.hooks >= hooks and not future.done():
                future.set_result(None)

    async def wait(self, calls: int, hooks: int) -> None:
        future = asyncio.get_running_loop().create_future()
        entry = (calls, hooks, future)
        self.waiting.append(entry)
        self.ring()
        await asyncio.wait([future], timeout=5)
        self.waiting.remove(entry)

    def told(self) -> bytes:
        return json.dumps({key: value for key, value in vars(self).items() if key != "waiting"}).encode()


class Connection(asyncio.Protocol):
    def __init__(self, seen: Seen) -> None:
        self.seen = seen
        self.tasks: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.parser = HttpRequestParser(self)

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        self.url = url.decode()

    def on_message_complete(self) -> None:
        path = parse_url(self.url.encode()).path.decode()
        if path.startswith("/model/"):
            self.seen.call()
            asyncio.get_running_loop().call_later(int(path.split("/")[2]) / 1000, self.give)
        elif path == "/wait":
            task = asyncio.get_running_loop().create_task(self.wait())
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)
        elif path == "/reset":
            self.seen.forget()
            self.transport.write(http(b"{}"))
        else:
            self.seen.hook()
            self.transport.write(http(b"{}"))

    def give(self) -> None:
        self.seen.answer()
        self.transport.write(http(ANSWER))

    async def wait(self) -> None:
        asked = parse_qs(urlsplit(self.url).query)
        await self.seen.wait(int(asked.get("calls", ["0"])[0]), int(asked.get("hooks", ["0"])[0]))
        self.transport.write(http(self.seen.told()))


async def main() -> None:
    seen = Seen()
    server = await asyncio.get_running_loop().create_server(
        lambda: Connection(seen), "127.0.0.1", 0, backlog=4096
    )
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
