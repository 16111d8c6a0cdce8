"""Wires the arq process: one worker for jobs, one for webhooks.

`llm-service worker` starts it with the doorbell, so that a submit is picked up within milliseconds, and survives
a Redis that goes away. `arq llm_service.worker.WorkerSettings` starts the same functions in arq's own loop.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, ClassVar
from uuid import UUID

import structlog
from arq.connections import RedisSettings
from arq.worker import Function, Retry, func

from llm_service import memory
from llm_service.errors import ServiceUnavailable, SettingsInvalid
from llm_service.job_worker import JobWorker
from llm_service.jobs.queue import (
    DELIVER_WEBHOOK,
    JOBS,
    RUN_JOB,
    WEBHOOKS,
    pack,
    unpack,
    workflow_of,
)
from llm_service.logs import configure_logs, get_logger
from llm_service.runtime import Runtime, end_task
from llm_service.settings import Settings, load_settings
from llm_service.workflows import load_workflows

log = get_logger(__name__)

LEAVE_S = 5.0
LAST_RESORT_S = 30.0
"""After the grace a stop has this long to give jobs back and close connections, also to servers that hang."""


# --- what is done with a hint -----------------------------------------------------------------------------


async def run_row(runtime: Runtime, row_id: UUID) -> None:
    """Run the job with this id, if it is still to be run."""
    structlog.contextvars.clear_contextvars()
    await runtime.runner.run(row_id)


async def deliver_row(runtime: Runtime, row_id: UUID) -> None:
    """Try the webhook of the job with this id, if one is due."""
    structlog.contextvars.clear_contextvars()
    try:
        await runtime.reporter.deliver(row_id)
    except ServiceUnavailable:
        log.warning("could not deliver, the database is away", job_id=str(row_id))


# --- the same as arq knows it -----------------------------------------------------------------------------


async def run_job(ctx: dict[str, Any], row_id: str) -> None:
    runtime: Runtime = ctx["runtime"]
    if not runtime.heartbeat.is_steady:
        return  # cut off from the database: whoever is not will be told again
    if not runtime.knows(workflow_of(ctx["job_id"])):
        raise Retry(defer=LEAVE_S)  # another worker may know it
    # Out of the line at once: it then holds waiting work alone, however many jobs are running.
    await runtime.queue.drop(JOBS, ctx["job_id"])
    await run_row(runtime, UUID(row_id))


async def deliver_webhook(ctx: dict[str, Any], row_id: str) -> None:
    await deliver_row(ctx["runtime"], UUID(row_id))


def functions(
    name: str, coroutine: Callable[..., Awaitable[None]], *, timeout_s: float = 7 * 86_400
) -> list[Function]:
    """Declare a function to arq. Its time limit is ours, inside the run; arq's own only has to be larger.

    A result is never kept: it would refuse the next hint of the same name.
    """
    return [func(coroutine, name=name, timeout=timeout_s, keep_result=0, max_tries=1_000_000)]  # type: ignore[arg-type]


def webhook_worker(runtime: Runtime) -> JobWorker:
    """Deliveries have slots of their own: receivers that hang slow no job."""
    return JobWorker(
        WEBHOOKS,
        runtime,
        follow=partial(deliver_row, runtime),
        functions=functions(DELIVER_WEBHOOK, deliver_webhook),
        max_jobs=runtime.settings.webhook_concurrency,
    )


class WorkerProcess:
    """Both workers of one process, from start to an orderly end."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        slots = runtime.settings.worker_concurrency
        jobs = JobWorker(
            JOBS,
            runtime,
            follow=partial(run_row, runtime),
            functions=functions(RUN_JOB, run_job),
            max_jobs=slots,
        )
        self._workers = [jobs, webhook_worker(runtime)]
        self.loops = [asyncio.create_task(worker.main()) for worker in self._workers]

    async def drain(self, grace_s: float) -> None:
        """Take nothing more; finish what ends within the grace, give the rest back."""
        self.runtime.reporter.stop()
        for worker in self._workers:
            worker.stop_picking()
        await asyncio.gather(*(worker.drain(grace_s) for worker in self._workers))

    async def close(self) -> None:
        """Raises what ended a loop before its time: that is a bug."""
        for loop in self.loops:
            await end_task(loop)
        ends = await asyncio.gather(*self.loops, return_exceptions=True)
        # Nothing starts any more; what did start after the drain is given back before its connections close.
        await self.drain(0.0)
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
    memory.settle()
    process = WorkerProcess(runtime)
    await _first_of(*process.loops, asyncio.create_task(stop.wait()))
    log.info("worker stopping", running=len(runtime.heartbeat.running))
    asyncio.get_running_loop().call_later(settings.shutdown_grace + LAST_RESORT_S, give_up)
    drained = asyncio.create_task(process.drain(settings.shutdown_grace))
    await _first_of(drained, asyncio.create_task(hurry.wait()))
    if not drained.done():
        await process.drain(0.0)
    await drained
    await process.close()


def give_up() -> None:
    """Leave as a crash would: leases run out and others take over. Better than a process that nobody can stop."""
    log.critical("could not stop in time, leaving without it")
    os._exit(1)


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
    try:
        settings = load_settings(os.environ)
        configure_logs(settings.log_level, settings.log_format)
        runtime = Runtime(settings, load_workflows())
    except SettingsInvalid as error:
        sys.exit(error.message)
    await runtime.open()
    companion = webhook_worker(runtime)
    ctx |= {"runtime": runtime, "companion": companion, "loop": asyncio.create_task(companion.main())}


async def close_runtime(ctx: dict[str, Any]) -> None:
    if "runtime" not in ctx:
        return  # the start failed, and has said why
    ctx["companion"].stop_picking()
    ctx["runtime"].reporter.stop()
    await ctx["companion"].drain(5.0)
    await end_task(ctx["loop"])
    await ctx["companion"].close()
    await ctx["runtime"].close()


def number_in_environment(variable: str, default: float) -> float:
    """A setting that arq wants while this module is imported; a wrong one is named when the worker starts."""
    try:
        return float(os.environ.get(variable) or default)
    except ValueError:
        return default


def redis_in_environment() -> RedisSettings:
    try:
        return RedisSettings.from_dsn(os.environ.get("REDIS_URL") or "redis://127.0.0.1:6379/0")
    except (AssertionError, ValueError, RuntimeError):
        return RedisSettings()


class WorkerSettings:
    """For `arq llm_service.worker.WorkerSettings`, with `--check` and `--burst` as everywhere.

    arq keeps its mark on a hint as long as the longest job may run: a worker killed before its claim hides the
    job for that time. `llm-service worker` has no such gap.
    """

    functions: ClassVar = functions(
        RUN_JOB, run_job, timeout_s=number_in_environment("LLM_SERVICE_JOB_TIMEOUT", 300) + 60
    )
    queue_name = JOBS
    redis_settings = redis_in_environment()
    on_startup = open_runtime
    on_shutdown = close_runtime
    max_jobs = int(number_in_environment("LLM_SERVICE_WORKER_CONCURRENCY", 100))
    poll_delay = 0.1
    job_serializer = pack
    job_deserializer = unpack
    job_completion_wait = 25
    keep_result = 0
    health_check_interval = 15
    log_results = False
    expires_extra_ms = 86_400_000
