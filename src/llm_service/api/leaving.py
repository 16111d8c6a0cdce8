"""An orderly leave: the API says that it is not ready before it stops to answer."""

import asyncio
import signal
import threading
from types import FrameType

from litestar.datastructures import State

from llm_service.logs import get_logger

log = get_logger(__name__)


def leave_in_order(state: State, delay_s: float) -> None:
    """Let SIGTERM turn `/health/ready` to 503 at once, and reach the server only after so many seconds.

    A load balancer meanwhile looks elsewhere. A second signal is not held back. Call it when the server has
    taken its signals; outside of the main thread, where there are none, it does nothing.
    """
    state.leaving = False
    if not delay_s or threading.current_thread() is not threading.main_thread():
        return
    loop = asyncio.get_running_loop()
    stop = signal.getsignal(signal.SIGTERM)
    assert callable(stop)  # noqa: S101 - narrows the type: a server that runs an app has taken SIGTERM

    def heard(number: int, frame: FrameType | None) -> None:
        if state.leaving:
            stop(number, frame)
            return
        state.leaving = True
        log.info("leaving", serves_for_s=delay_s)
        loop.call_soon_threadsafe(loop.call_later, delay_s, stop, number, None)

    signal.signal(signal.SIGTERM, heard)
