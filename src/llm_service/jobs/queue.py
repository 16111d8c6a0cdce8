"""Keeper of Redis: hints that wake workers. Nothing here is the truth; all of it can be lost and is rebuilt.

A hint is one arq job whose only argument is a row's id. Its arq id carries the number of claims made so far,
so that telling it twice is harmless and the leftovers of a dead attempt never block the next; and the name of
the workflow, so that a worker that does not know it leaves the hint where it is.
"""

import asyncio
import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import repeat
from typing import Any
from uuid import UUID

import msgspec
import redis.asyncio as aioredis
from arq.connections import ArqRedis
from arq.constants import job_key_prefix, retry_key_prefix
from arq.jobs import serialize_job
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from redis.exceptions import RedisError

from llm_service.jobs.store.deliveries import DeliveryHint
from llm_service.jobs.store.leases import Hint
from llm_service.logs import get_logger

log = get_logger(__name__)

JOBS = "llm:jobs"
WEBHOOKS = "llm:webhooks"
BELL = {JOBS: "llm:jobs:bell", WEBHOOKS: "llm:webhooks:bell"}
CANCELS = "llm:cancels"
RUN_JOB = "run_job"
DELIVER_WEBHOOK = "deliver_webhook"

LEAD = timedelta(days=1)
"""How far all jobs are put before their age, so that one that is to wait its turn is due all the same."""
HINT_TTL_MS = 30 * 86_400_000
"""Far longer than any wait: a hint that expires costs a sweep, and arq says "expired" of it."""
MOST_RINGS = 20
# As one command, since to write three and to read their answers for each hint costs a submit a tenth of its time.
TELL = """
for i = 5, #ARGV, 3 do
  redis.call('SET', ARGV[2] .. ARGV[i], ARGV[i + 2], 'PX', ARGV[3])
  redis.call('ZADD', KEYS[1], ARGV[1], ARGV[i + 1], ARGV[i])
end
for _ = 1, ARGV[4] do redis.call('LPUSH', KEYS[2], '1') end
redis.call('LTRIM', KEYS[2], 0, 99)
"""
"""KEYS: queue, bell. ARGV: NX or LT, prefix and life (ms) of bodies, rings; then name, score and body of each hint."""
DEADLINE_S = 1.0
PAUSE_S = 3.0
"""After a failure Redis is left alone for this long: submits answer at once meanwhile."""

REDIS_ERRORS = (RedisError, OSError, asyncio.TimeoutError, RuntimeError)
"""How an absent Redis shows. RuntimeError is uvloop's word for a connection that closed while it was written to."""

# arq packs the exceptions of its own failures too; their type is all that is worth keeping.
pack = msgspec.msgpack.Encoder(enc_hook=lambda value: type(value).__name__).encode
unpack = msgspec.msgpack.decode


def connect(url: str, *, socket_timeout_s: float | None = 2.0) -> ArqRedis:
    """A client with deadlines and one retry; it connects when it is first used."""
    client: ArqRedis = ArqRedis.from_url(
        url,
        socket_timeout=socket_timeout_s,
        socket_connect_timeout=1.0,
        retry=Retry(ExponentialBackoff(cap=0.2, base=0.05), retries=1),
        retry_on_error=[ConnectionError],
        # No health_check_interval: redis-py checks while it connects, and where a connection is accepted and
        # reset at once, check and connect call each other without end.
    )
    client.job_serializer = pack
    client.job_deserializer = unpack
    return client


class JobQueue:
    """Tells Redis what there is to do. No method raises because Redis is away: they say whether it was told."""

    def __init__(self, client: aioredis.Redis, *, head_start_s: float) -> None:
        self.client = client
        self._head_start = timedelta(seconds=head_start_s)
        self._paused_until = 0.0
        self.is_away = False

    async def wake(self, hints: Sequence[Hint], behind: Iterable[timedelta] | None = None) -> bool:
        """Tell of pending jobs. An older or more urgent one has the lower score and comes first.

        `behind` is how much younger each counts as, at most a day. One that is in line already keeps its place.
        """
        entries = [
            (hint_id(hint), hint.job_id, hint.queued_at - hint.priority * self._head_start - LEAD + later)
            for hint, later in zip(hints, behind or repeat(timedelta(0)), strict=False)
        ]
        return await self._tell(JOBS, RUN_JOB, entries, only="NX")

    async def wake_webhooks(self, hints: Sequence[DeliveryHint]) -> bool:
        """Tell of deliveries; the score of a later try is the moment it is due."""
        # Named apart from the job's own hints: arq's keys know no queues.
        entries = [(f"webhook:{hint.job_id}:{hint.tries}", hint.job_id, hint.due_at) for hint in hints]
        # One that is there already may come earlier by this, never later.
        return await self._tell(WEBHOOKS, DELIVER_WEBHOOK, entries, only="LT")

    async def announce_cancel(self, job_ids: Sequence[UUID]) -> bool:
        """Ask whoever runs the jobs to break them off; a worker that does not hear it learns by its next beat."""

        def write(pipe: Any) -> None:
            for job_id in job_ids:
                pipe.publish(CANCELS, str(job_id))

        return await self._attempt("cancel", write) if job_ids else True

    async def drop(self, queue: str, name: str) -> bool:
        """Take a hint out of Redis: it is being followed. A worker that dies later then leaves nothing there."""

        def write(pipe: Any) -> None:
            pipe.zrem(queue, name)
            pipe.delete(job_key_prefix + name, retry_key_prefix + name)

        return await self._attempt("drop", write)

    async def count(self, names: Sequence[str], *, window_s: float) -> list[tuple[int, float]] | None:
        """Count one more of each in a window that begins with its first, in one round trip.

        Returns each one's count and the seconds until its window ends; None when Redis is away.
        """

        def write(pipe: Any) -> None:
            for name in names:
                pipe.set(name, 0, px=timedelta(seconds=window_s), nx=True)
                pipe.incr(name)
                pipe.pttl(name)

        answers = await self._ask("count", write)
        if answers is None:
            return None
        return [(count, left_ms / 1000) for count, left_ms in zip(answers[1::3], answers[2::3], strict=True)]

    async def ping(self) -> bool:
        return await self._attempt("ping", lambda pipe: pipe.ping(), even_if_paused=True)

    async def _tell(
        self, queue: str, function: str, entries: Sequence[tuple[str, UUID, datetime]], *, only: str
    ) -> bool:
        if not entries:
            return True

        told_ms = int(time.time() * 1000)
        words: list[Any] = []
        for name, row_id, moment in entries:
            body = serialize_job(function, (str(row_id),), {}, None, told_ms, serializer=pack)
            words += (name, _milliseconds(moment), body)
        rings = min(len(entries), MOST_RINGS)

        def write(pipe: Any) -> None:
            pipe.eval(TELL, 2, queue, BELL[queue], only, job_key_prefix, HINT_TTL_MS, rings, *words)

        return await self._attempt("wake", write)

    async def _attempt(self, what: str, write: Any, *, even_if_paused: bool = False) -> bool:
        return await self._ask(what, write, even_if_paused=even_if_paused) is not None

    async def _ask(self, what: str, write: Any, *, even_if_paused: bool = False) -> list[Any] | None:
        """The answers to a pipeline; None when Redis is away, or was a moment ago."""
        if time.monotonic() < self._paused_until and not even_if_paused:
            return None
        try:
            async with asyncio.timeout(DEADLINE_S):
                async with self.client.pipeline(transaction=False) as pipe:
                    write(pipe)
                    answers: list[Any] = await pipe.execute()
        except REDIS_ERRORS as error:
            self._note_absence(what, error)
            return None
        if self.is_away:
            self.is_away = False
            log.info("redis is back")
        return answers

    def _note_absence(self, what: str, error: Exception) -> None:
        self._paused_until = time.monotonic() + PAUSE_S
        if not self.is_away:
            self.is_away = True
            log.warning("redis away, the reconciler will catch up", during=what, error=type(error).__name__)

    async def close(self) -> None:
        await self.client.aclose(close_connection_pool=True)


def hint_id(hint: Hint) -> str:
    return f"{hint.job_id}:{hint.claims}:{hint.workflow_name}"


def workflow_of(name: str) -> str | None:
    """The workflow that a hint is about; None where its name does not say."""
    return name.split(":", 2)[2] if name.count(":") > 1 else None


def row_of(name: str) -> UUID:
    """The row that a hint is about."""
    return UUID(name.removeprefix("webhook:").split(":", 1)[0])


def _milliseconds(moment: datetime) -> int:
    return int((moment - datetime.fromtimestamp(0, UTC)).total_seconds() * 1000)


# One round trip for looking at the line and taking from it: a job on its way to an idle worker waits for each.
_TAKE = """
local taken, offset, known = {}, 0, {}
for i = 4, #ARGV do known[ARGV[i]] = true end
while #taken < tonumber(ARGV[2]) and offset < 10000 do
  local names = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[1], 'LIMIT', offset, ARGV[2])
  if #names == 0 then break end
  for _, name in ipairs(names) do
    local workflow = string.match(name, '^[^:]*:[^:]*:(.*)$')
    if #ARGV > 3 and workflow and not known[workflow] then
      offset = offset + 1
    elseif #taken < tonumber(ARGV[2]) then
      redis.call('ZREM', KEYS[1], name)
      redis.call('DEL', ARGV[3] .. name)
      taken[#taken + 1] = name
    end
  end
end
return taken
"""


async def take(client: aioredis.Redis, queue: str, most: int, *, known: Iterable[str] = ()) -> list[bytes]:
    """Take the first hints that are due out of the line. What comes back is the caller's to follow.

    With `known`, hints about other workflows stay where they are, for those who know them.
    """
    asked: Any = client.eval(_TAKE, 1, queue, int(time.time() * 1000), most, job_key_prefix, *known)  # type: ignore[arg-type]
    return list(await asked)
