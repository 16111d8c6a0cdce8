"""The service on a free port of this machine, in a thread of its own, so that a browser can go there."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from llm_service.app import create_app
from llm_service.settings import Settings


@contextmanager
def served(settings: Settings) -> Iterator[str]:
    """The address of the running service."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(
        uvicorn.Config(
            create_app(settings), log_config=None, access_log=False, server_header=False, lifespan="on"
        )
    )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)
        listener.close()
