"""How many deliveries may be under way at once, to one host and to all slow ones. Pure; one for each process.

A delivery that finds no lane gives its slot back and waits here by its id alone. Whoever leaves a lane goes on
with one that waits, so that a host's deliveries follow one another without a pause.
"""

from collections import Counter, OrderedDict
from uuid import UUID

PER_HOST = 4
SLOW_S = 5.0
"""A host that took so long for a try is slow until one takes less; slow hosts share half of the slots."""
MOST_WAITING = 10_000
"""Ids kept here. What is not kept comes back by the reconciler."""
MOST_SLOW = 10_000


class Lanes:
    def __init__(self, slots: int) -> None:
        self._for_slow = max(1, slots // 2)
        self._busy: Counter[str] = Counter()
        self._slow: OrderedDict[str, None] = OrderedDict()
        self._slow_busy = 0
        self._waiting: OrderedDict[str, dict[UUID, None]] = OrderedDict()
        self._waiting_count = 0

    def enter(self, host: str, job_id: UUID) -> bool:
        """Take a lane to the host. False when there is none: the delivery waits."""
        if not self._has_room(host):
            self._keep(host, job_id)
            return False
        self._drop(host, job_id)
        self._busy[host] += 1
        self._slow_busy += host in self._slow
        return True

    def leave(self, host: str, *, took_s: float | None) -> None:
        """Give a lane back. `took_s` is how long the host needed, None where it was not asked after all."""
        self._busy[host] -= 1
        self._slow_busy -= host in self._slow
        if not self._busy[host]:
            del self._busy[host]
        if took_s is not None and took_s >= SLOW_S:
            self._call_slow(host)
        elif took_s is not None:
            self._call_fast(host)

    def following(self, host: str | None) -> UUID | None:
        """Take out a delivery that waits and now has room: after a lane to this host was left, or not needed."""
        found = self._next_host(host)
        if found is None:
            return None
        job_id = next(iter(self._waiting[found]))
        self._drop(found, job_id)
        return job_id

    def _next_host(self, host: str | None) -> str | None:
        if host is not None and host in self._waiting:
            # The fast keep their own lanes; the slow take turns, or one of them would hold all lanes of the slow.
            if host not in self._slow and self._has_room(host):
                return host
            self._waiting.move_to_end(host)
        if self._slow_busy >= self._for_slow:
            return None
        return next((waiting for waiting in self._waiting if self._has_room(waiting)), None)

    def _has_room(self, host: str) -> bool:
        return self._busy[host] < PER_HOST and (host not in self._slow or self._slow_busy < self._for_slow)

    def _keep(self, host: str, job_id: UUID) -> None:
        waiting = self._waiting.setdefault(host, {})
        if job_id not in waiting and self._waiting_count < MOST_WAITING:
            waiting[job_id] = None
            self._waiting_count += 1
        if not waiting:
            del self._waiting[host]

    def _drop(self, host: str, job_id: UUID) -> None:
        waiting = self._waiting.get(host)
        if waiting is None or job_id not in waiting:
            return
        del waiting[job_id]
        self._waiting_count -= 1
        if not waiting:
            del self._waiting[host]

    def _call_slow(self, host: str) -> None:
        if host not in self._slow:
            self._slow[host] = None
            self._slow_busy += self._busy[host]
        self._slow.move_to_end(host)
        if len(self._slow) > MOST_SLOW:
            self._call_fast(next(iter(self._slow)))

    def _call_fast(self, host: str) -> None:
        if host in self._slow:
            del self._slow[host]
            self._slow_busy -= self._busy[host]
