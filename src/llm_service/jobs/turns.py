"""Whose turn it is: a user who hands in a thousand jobs does not make everybody else wait for all of them.

Start-time fair queueing: each job of a user moves the turn of that user's next one back. Order matters only
while jobs wait, so a user who is alone with a flood loses nothing.
"""

from collections.abc import Hashable
from datetime import datetime, timedelta
from operator import itemgetter

STEP = timedelta(seconds=1)
MOST = timedelta(minutes=10)
"""The furthest that a flood falls behind: after that long it is served like any other waiting job."""
MOST_USERS = 10_000


class Turns:
    """The turns of one API process. They are a courtesy and not kept: Redis has them as scores, nobody else."""

    def __init__(self) -> None:
        self._next: dict[Hashable, datetime] = {}

    def take(self, user: Hashable | None, at: datetime) -> timedelta:
        """How far behind its age a job handed in at this moment is to be served; nobody's job never is."""
        if user is None:
            return timedelta(0)
        behind = min(max(self._next.pop(user, at) - at, timedelta(0)), MOST)
        if len(self._next) >= MOST_USERS:
            self._forget(at)
        self._next[user] = at + behind + STEP
        return behind

    def _forget(self, at: datetime) -> None:
        """Drop those whose turn is now anyway, and of too many others the half that waits least."""
        waiting = [(user, turn) for user, turn in self._next.items() if turn > at]
        if len(waiting) >= MOST_USERS:
            waiting = sorted(waiting, key=itemgetter(1))[MOST_USERS // 2 :]
        self._next = dict(waiting)
