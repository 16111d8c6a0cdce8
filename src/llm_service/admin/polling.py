"""How often one session may look at one view: on average once in 2 s, with room for what people do by hand.

Counted in this process's memory, as a courtesy to the database and no defence against who means harm: with several API
processes each counts for itself.
"""

import hashlib
import math
import time
from collections.abc import Callable
from typing import Any

from litestar import Request

from llm_service.admin.errors import PollingTooFast
from llm_service.admin.sessions import session_of

EVERY_S = 2.0
BURST = 30
"""A minute's worth: tabs that are opened together, filters changed back and forth, refresh pressed in anger."""
MOST_VIEWS = 10_000


class Looks:
    """What each view has used up: the moment at which all of its looks so far would have been one every 2 s."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._used_up_to: dict[bytes, float] = {}

    def refuse_haste(self, session: str, view: str) -> None:
        """Count one look. Raises `PollingTooFast`, and counts none, where it is one too many."""
        moment = self._now()
        key = hashlib.blake2b(f"{session} {view}".encode(errors="replace"), digest_size=16).digest()
        used_up_to = max(self._used_up_to.get(key, moment), moment) + EVERY_S
        wait_s = used_up_to - moment - BURST * EVERY_S
        if wait_s > 0:
            raise PollingTooFast(retry_after_s=math.ceil(wait_s))
        if key not in self._used_up_to and len(self._used_up_to) >= MOST_VIEWS:
            self._forget(moment)
        self._used_up_to[key] = used_up_to

    def _forget(self, moment: float) -> None:
        """Drop the views that have nothing used up, and of too many others the half that has used up least."""
        busy = [(key, until) for key, until in self._used_up_to.items() if until > moment]
        if len(busy) >= MOST_VIEWS:
            busy = sorted(busy, key=lambda entry: entry[1])[MOST_VIEWS // 2 :]
        self._used_up_to = dict(busy)


def refuse_haste(request: Request[Any, Any, Any], view: str) -> None:
    """For the parts of pages that their script asks for again and again."""
    looks: Looks = request.app.state.looks
    looks.refuse_haste(session_of(request).name, view)
