"""What one worker process holds open: connections, the model, and the tasks beside the jobs."""

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import aiohttp
from prometheus_client import start_http_server
from uuid_utils.compat import uuid7

from llm_service.db import BEAT_LIMITS, WORKER_LIMITS, Database
from llm_service.errors import ServiceUnavailable, SettingsInvalid
from llm_service.jobs.context import Budget
from llm_service.jobs.heartbeat import Heartbeat
from llm_service.jobs.queue import CANCELS, REDIS_ERRORS, JobQueue, connect
from llm_service.jobs.report import Reporter
from llm_service.jobs.rescue import Reconciler
from llm_service.jobs.run import Runner
from llm_service.jobs.secrets import SecretBox, check_service_secrets
from llm_service.jobs.store import upkeep
from llm_service.llm import check_model, open_llm, open_prices
from llm_service.llm.http import open_session as open_model_session
from llm_service.logs import get_logger
from llm_service.settings import Settings
from llm_service.startup import look_around
from llm_service.webhooks.post import open_session
from llm_service.workflows.base import Workflow

log = get_logger(__name__)

RECONNECT_S = 1.0


class Runtime:
    """What one worker process holds open: connections, the model, and the tasks beside the jobs."""

    def __init__(self, settings: Settings, workflows: Mapping[str, Workflow[Any, Any]]) -> None:
        # Before anything is opened: a wrong setting stops the start, not the first job.
        check_model(settings)
        check_service_secrets(settings.webhook_secret)
        self.name = f"{socket.gethostname()}:{os.getpid()}:{uuid7().hex[-6:]}"
        self.settings = settings
        self.database = Database(settings.database_url, WORKER_LIMITS, name="worker")
        self._beats = Database(settings.database_url, BEAT_LIMITS, name="heartbeat")
        self.queue = JobQueue(connect(settings.redis_url), head_start_s=settings.priority_head_start)
        self.workflows = workflows
        self.prices = open_prices(settings)
        self.secrets = SecretBox(settings.encryption_keys)
        self._sessions: list[aiohttp.ClientSession] = []
        self._tasks: list[asyncio.Task[None]] = []
        self.runner: Runner
        self.reporter: Reporter
        self.heartbeat: Heartbeat

    async def open(self) -> None:
        await self._refuse_an_empty_database()
        settings = self.settings
        models = open_model_session()
        receivers = open_session(settings.webhook_allowed_hosts)
        self._sessions = [models, receivers]
        self.heartbeat = Heartbeat(
            self._beats, worker=self.name, lease_s=settings.lease, concurrency=settings.worker_concurrency
        )
        self.runner = Runner(
            database=self.database,
            queue=self.queue,
            heartbeat=self.heartbeat,
            workflows=self.workflows,
            model=open_llm(settings, models),
            prices=self.prices,
            worker=self.name,
            job_timeout_s=settings.job_timeout,
            budget=Budget(
                calls=settings.max_calls_per_job,
                tokens=settings.max_tokens_per_job,
                cost_usd=Decimal(str(settings.max_cost_per_job)),
            ),
        )
        self.reporter = Reporter(
            database=self.database,
            queue=self.queue,
            session=receivers,
            secrets=self.secrets,
            service_secrets=settings.webhook_secret,
            slots=settings.webhook_concurrency,
        )
        reconciler = Reconciler(self.database, self.queue, lease_s=settings.lease)
        for forever in (
            self.heartbeat.beat_forever,
            self.heartbeat.glance_forever,
            self.heartbeat.watch_forever,
            reconciler.sweep_forever,
            self._hear_cancels,
        ):
            self._tasks.append(asyncio.create_task(forever(), name=forever.__qualname__))
            self._tasks[-1].add_done_callback(_stop_on_bug)
        await look_around(self.database, self.queue)
        if settings.metrics_port:
            start_http_server(settings.metrics_port, addr=settings.host)
        log.info("worker ready", worker=self.name, model=settings.model, workflows=sorted(self.workflows))

    async def _refuse_an_empty_database(self) -> None:
        """A worker can do nothing there. One that is away may be the right one: then the work begins later."""
        with contextlib.suppress(ServiceUnavailable):
            if await upkeep.schema_version(self.database) is None:
                raise SettingsInvalid(
                    "The database at DATABASE_URL has no schema yet: run `llm-service migrate` (or `make migrate`)."
                )

    def knows(self, workflow: str | None) -> bool:
        """Whether this process can run a workflow; a hint that does not name one is worth a try."""
        return workflow is None or workflow in self.workflows

    async def _hear_cancels(self) -> None:
        """Break off a run as soon as its job was cancelled; without Redis the next beat says the same."""
        while True:
            client = connect(self.settings.redis_url, socket_timeout_s=None)
            try:
                async with client.pubsub() as channel:
                    await channel.subscribe(CANCELS)
                    async for message in channel.listen():
                        if message["type"] == "message":
                            self._break_off(message["data"].decode(errors="replace"))
            except REDIS_ERRORS:
                await asyncio.sleep(RECONNECT_S)
            finally:
                await client.aclose(close_connection_pool=True)

    def _break_off(self, job_id: str) -> None:
        for run in self.heartbeat.running:
            if str(run.claim.job_id) == job_id:
                run.break_off("cancelled")

    async def close(self) -> None:
        for task in self._tasks:
            task.remove_done_callback(_stop_on_bug)
            await end_task(task)
        await self.runner.close()
        with contextlib.suppress(ServiceUnavailable):
            await upkeep.sign_off(self.database, self.name)
        for session in self._sessions:
            await session.close()
        await self.queue.close()
        await self._beats.close()
        await self.database.close()


async def end_task(task: asyncio.Task[None]) -> None:
    """Cancel a task until it has ended: a client that loses its server may turn a cancellation into its own error."""
    while not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=1.0)


def _stop_on_bug(task: asyncio.Task[None]) -> None:
    """A heartbeat or reconciler that ends by itself is a bug: better no worker than one without leases."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.critical("background task died", task=task.get_name(), exc_info=error)
        os.kill(os.getpid(), signal.SIGTERM)
