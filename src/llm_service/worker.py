"""Wires the arq process: one worker for jobs, one for webhooks.

`llm-service worker` starts it with the doorbell, so that a submit is picked up within milliseconds, and survives
a Redis that goes away. `arq llm_service.worker.WorkerSettings` starts the same functions in arq's own loop.
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar
from uuid import UUID

import structlog
from arq.connections import RedisSettings
from arq.worker import Function, Worker, func
from redis.exceptions import RedisError

from llm_service.errors import ServiceUnavailable
from llm_service.jobs.queue import (
    BELL,
    DELIVER_WEBHOOK,
    JOBS,
    RUN_JOB,
    WEBHOOKS,
    connect,
    pack,
    running_elsewhere,
    unpack,
)
from llm_service.logs import configure_logs, get_logger
from llm_service.runtime import Runtime
from llm_service.settings import Settings, load_settings
from llm_service.workflows import load_workflows

log = get_logger(__name__)

CLAIM_S = 10
"""How long arq's own mark on a hint lasts: it covers the claim; from then on the lease does."""
POLL_S = 1.0
"""The safety net below the doorbell."""
RING_WAIT_S = 5
RELEASE_S = 10.0
"""How long a run that is broken off may take to give its job back."""


# --- the two functions that arq knows ---------------------------------------------------------------------


async def run_job(ctx: dict[str, Any], row_id: str) -> None:
    """Run the job with this id, if it is still to be run."""
    runtime: Runtime = ctx["runtime"]
    structlog.contextvars.clear_contextvars()
    if not runtime.heartbeat.is_steady:
        return  # cut off from the database: whoever is not will be told again
    # Out of the line at once: it then holds waiting work alone, however many jobs are running.
    await runtime.queue.drop(JOBS, ctx["job_id"])
    await runtime.runner.run(UUID(row_id))


async def deliver_webhook(ctx: dict[str, Any], row_id: str) -> None:
    """Try the webhook of the job with this id, if one is due."""
    runtime: Runtime = ctx["runtime"]
    structlog.contextvars.clear_contextvars()
    try:
        await runtime.reporter.deliver(UUID(row_id))
    except ServiceUnavailable:
        log.warning("could not deliver, the database is away", job_id=row_id)


def functions(name: str, coroutine: Callable[..., Awaitable[None]]) -> list[Function]:
    # The time limit is ours, inside the run; arq's own only has to be larger. A result is never kept: it
    # would refuse the next hint of the same name.
    return [func(coroutine, name=name, timeout=7 * 86_400, keep_result=0, max_tries=1_000_000)]  # type: ignore[arg-type]


def common_options(settings: Settings, runtime: Runtime) -> dict[str, Any]:
    return {
        "ctx": {"runtime": runtime},
        "job_serializer": pack,
        "job_deserializer": unpack,
        "job_completion_wait": int(settings.shutdown_grace),
        "keep_result": 0,
        "health_check_interval": 15,
        "log_results": False,
    }


class JobWorker(Worker):
    """arq's worker, woken by a Redis list; the poll stays below it as a safety net.

    It survives a Redis that goes away, takes nothing while the process is cut off from PostgreSQL, and leaves
    signals to whoever started it.
    """

    def __init__(self, queue_name: str, runtime: Runtime, **options: Any) -> None:
        super().__init__(
            queue_name=queue_name,
            redis_pool=connect(runtime.settings.redis_url),
            handle_signals=False,
            poll_delay=0.0,
            queue_read_limit=5_000,
            **common_options(runtime.settings, runtime),
            **options,
        )
        self.in_progress_timeout_s = CLAIM_S
        self._runtime = runtime
        self._wake = asyncio.Event()

    async def main(self) -> None:
        bell = asyncio.create_task(self._listen())
        try:
            while True:
                await self._turn()
        finally:
            bell.cancel()

    async def _turn(self) -> None:
        self._wake.clear()  # first: a ring during the poll is kept
        try:
            await self._poll_iteration()
        except (RedisError, OSError) as error:  # arq's own loop ends the process here
            log.debug("poll failed", error=type(error).__name__)
            await asyncio.sleep(POLL_S / 2)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(POLL_S):
                await self._wake.wait()

    async def start_jobs(self, job_ids: list[bytes]) -> None:
        if not self._runtime.heartbeat.is_steady:
            return
        waiting = [hint for raw in job_ids if (hint := raw.decode()) not in self.tasks]
        if not waiting:
            return
        busy = await running_elsewhere(self.pool, waiting)
        await super().start_jobs([hint.encode() for hint in waiting if hint not in busy])

    def _release_sem_dec_counter_on_complete(self) -> None:
        super()._release_sem_dec_counter_on_complete()
        self._wake.set()  # a slot is free: do not wait for the poll

    async def _listen(self) -> None:
        """Take a ring only while there is a free slot, so that a full worker leaves it to the others."""
        client = connect(self._runtime.settings.redis_url, socket_timeout_s=RING_WAIT_S + 3)
        try:
            while True:
                if self.job_counter >= self.max_jobs or not self.allow_pick_jobs:
                    await asyncio.sleep(0.05)
                    continue
                try:
                    rang: Any = client.brpop([BELL[self.queue_name]], timeout=RING_WAIT_S)
                    if await rang:
                        self._wake.set()
                except (RedisError, OSError):
                    await asyncio.sleep(POLL_S / 2)
        finally:
            await client.aclose(close_connection_pool=True)

    def stop_picking(self) -> None:
        self.allow_pick_jobs = False

    async def drain(self, grace_s: float) -> None:
        """Wait for what is running, at most for the grace; then break the rest off and wait for its release."""
        running = [task for task in self.tasks.values() if not task.done()]
        if not running:
            return
        _, late = await asyncio.wait(running, timeout=grace_s)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late, timeout=RELEASE_S)

    async def close(self) -> None:
        with contextlib.suppress(RedisError, OSError):
            await self.pool.delete(self.health_check_key)
        await self.pool.aclose(close_connection_pool=True)


def webhook_worker(runtime: Runtime) -> JobWorker:
    """Deliveries have slots of their own: receivers that hang slow no job."""
    return JobWorker(
        WEBHOOKS,
        runtime,
        functions=functions(DELIVER_WEBHOOK, deliver_webhook),
        max_jobs=runtime.settings.webhook_concurrency,
    )


class WorkerProcess:
    """Both workers of one process, from start to an orderly end."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        slots = runtime.settings.worker_concurrency
        jobs = JobWorker(JOBS, runtime, functions=functions(RUN_JOB, run_job), max_jobs=slots)
        self._workers = [jobs, webhook_worker(runtime)]
        self.loops = [asyncio.create_task(worker.main()) for worker in self._workers]

    async def drain(self, grace_s: float) -> None:
        """Take nothing more; finish what ends within the grace, give the rest back."""
        for worker in self._workers:
            worker.stop_picking()
        await asyncio.gather(*(worker.drain(grace_s) for worker in self._workers))

    async def close(self) -> None:
        """Raises what ended a loop before its time: that is a bug."""
        for loop in self.loops:
            loop.cancel()
        ends = await asyncio.gather(*self.loops, return_exceptions=True)
        for worker in self._workers:
            await worker.close()
        await self.runtime.close()
        for end in ends:
            if isinstance(end, Exception):
                raise end


async def serve(settings: Settings) -> None:
    """Run one worker process until SIGTERM or SIGINT; a second signal ends it at once, giving its jobs back."""
    stop, hurry = asyncio.Event(), asyncio.Event()
    _hear_signals(stop, hurry)
    runtime = Runtime(settings, load_workflows())
    await runtime.open()
    process = WorkerProcess(runtime)
    await _first_of(*process.loops, asyncio.create_task(stop.wait()))
    log.info("worker stopping", running=len(runtime.heartbeat.running))
    drained = asyncio.create_task(process.drain(settings.shutdown_grace))
    await _first_of(drained, asyncio.create_task(hurry.wait()))
    if not drained.done():
        await process.drain(0.0)
    await drained
    await process.close()


async def _first_of(*awaited: asyncio.Future[Any]) -> None:
    await asyncio.wait(awaited, return_when=asyncio.FIRST_COMPLETED)


def _hear_signals(stop: asyncio.Event, hurry: asyncio.Event) -> None:
    def heard() -> None:
        if stop.is_set():
            hurry.set()
        stop.set()

    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, heard)


# --- arq's own command line -------------------------------------------------------------------------------


async def open_runtime(ctx: dict[str, Any]) -> None:
    """arq's start-up hook: everything beside the jobs, webhooks included."""
    settings = load_settings(os.environ)
    configure_logs(settings.log_level, settings.log_format)
    runtime = Runtime(settings, load_workflows())
    await runtime.open()
    companion = webhook_worker(runtime)
    ctx |= {"runtime": runtime, "companion": companion, "loop": asyncio.create_task(companion.main())}


async def close_runtime(ctx: dict[str, Any]) -> None:
    ctx["companion"].stop_picking()
    await ctx["companion"].drain(5.0)
    ctx["loop"].cancel()
    await asyncio.gather(ctx["loop"], return_exceptions=True)
    await ctx["companion"].close()
    await ctx["runtime"].close()


class WorkerSettings:
    """For `arq llm_service.worker.WorkerSettings`, with `--check` and `--burst` as everywhere."""

    functions: ClassVar = functions(RUN_JOB, run_job)
    queue_name = JOBS
    redis_settings = RedisSettings.from_dsn(os.environ.get("REDIS_URL") or "redis://127.0.0.1:6379/0")
    on_startup = open_runtime
    on_shutdown = close_runtime
    max_jobs = int(os.environ.get("LLM_SERVICE_WORKER_CONCURRENCY") or 100)
    poll_delay = 0.1
    job_serializer = pack
    job_deserializer = unpack
    job_completion_wait = 25
    keep_result = 0
    health_check_interval = 15
    log_results = False
    expires_extra_ms = 86_400_000
