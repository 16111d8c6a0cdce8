"""When each of many retries is to start: one after another, not all at once.

A thousand jobs that failed together because the provider was overloaded would overload it again. The reconciler tells
of those whose time has come about every 3 s: what starts together is a handful.
"""

import random

PER_S = 5.0
"""Starts a second: 500 jobs in 100 s, 10,000 in 34 minutes. A worker of 100 slots ends ten jobs of 10 s a second, so
that half of it is left for what users ask for meanwhile."""
FEW = 20
"""So many go at once."""


def is_spread(count: int) -> bool:
    return count > FEW


class Starts:
    """The delays of one retry after the other, each at a random place in a slot of its own."""

    def __init__(self, after_s: float) -> None:
        """`after_s` is where the last of an earlier one stands: two that are under way together do not add up."""
        self._next_s = after_s

    def take(self) -> float:
        """How long the next job is to be held back, in seconds."""
        slot_s = 1 / PER_S
        delay_s = self._next_s + random.uniform(0.01, 1) * slot_s  # noqa: S311 - jitter
        self._next_s += slot_s
        return delay_s
