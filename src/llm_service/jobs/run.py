"""Run one job: claim it, work, end it. Every write names the lease token of its claim."""

import asyncio
import time
import traceback
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any
from uuid import UUID

import msgspec
import structlog

from llm_service import failpoints
from llm_service.db import Database, insist
from llm_service.errors import JobFailure, JobTimeout, ServiceUnavailable, WorkflowError
from llm_service.jobs.bookkeeping import Bookkeeper, LeaseLost
from llm_service.jobs.context import NOTHING, Budget, JobContext, storable
from llm_service.jobs.heartbeat import Heartbeat
from llm_service.jobs.model import JobStatus
from llm_service.jobs.queue import JobQueue
from llm_service.jobs.report import announce
from llm_service.jobs.store import endings, leases
from llm_service.jobs.store.endings import Ending, Outcome
from llm_service.jobs.store.leases import Claim
from llm_service.llm.model import Model
from llm_service.llm.prices import Prices
from llm_service.logs import get_logger
from llm_service.metrics import JOB_SECONDS, JOB_WAIT_SECONDS, JOBS_FINISHED, JOBS_RUNNING, STALE_WRITES
from llm_service.together import Together
from llm_service.workflows.base import Workflow

log = get_logger(__name__)


class Run:
    """A run under way, as the heartbeat sees it."""

    def __init__(self, claim: Claim, work: asyncio.Task[Any]) -> None:
        self.claim = claim
        self.work = work
        self.broken_off = ""
        self.is_ending = False

    def break_off(self, reason: str) -> None:
        """Stop, and write nothing: the job is somebody else's now."""
        if failpoints.is_off("fence"):
            return  # a build without the fence is one in which nothing keeps a stale worker from writing
        if self.is_ending:
            return  # the last write finds out by itself whether the lease is still ours
        self.broken_off = reason
        self.work.cancel()


class Runner:
    """Everything that the runs of one worker process share."""

    def __init__(
        self,
        *,
        database: Database,
        queue: JobQueue,
        heartbeat: Heartbeat,
        workflows: Mapping[str, Workflow[Any, Any]],
        model: Model,
        prices: Prices,
        worker: str,
        job_timeout_s: float,
        budget: Budget,
    ) -> None:
        self.heartbeat = heartbeat
        self._database = database
        self._queue = queue
        self._workflows = workflows
        self._model = model
        self._prices = prices
        self._worker = worker
        self._job_timeout_s = job_timeout_s
        self._budget = budget
        self._books = Bookkeeper(database)
        self._claims = Together(self._claim_all, left_behind=self._give_back)
        self._endings = Together(self._end_all, weigh=_size)
        self._announcements = Together(self._announce_all)

    async def run(self, job_id: UUID) -> None:
        """Claim the job and see it through. Returns quietly when there is nothing to claim."""
        claim = await self._claim(job_id)
        if claim is None:
            return
        await failpoints.hit("run.after-claim")
        structlog.contextvars.bind_contextvars(
            job_id=str(job_id),
            request_id=claim.request_id,
            workflow=claim.workflow_name,
            attempt=claim.attempt,
        )
        log.info("job started", waited_s=round(claim.waited_s, 3))
        JOB_WAIT_SECONDS.observe(max(claim.waited_s, 0.0))
        run = Run(claim, asyncio.create_task(self._work(claim)))
        self.heartbeat.keep(run)
        JOBS_RUNNING.inc()
        try:
            await self._see_through(run)
        finally:
            JOBS_RUNNING.dec()
            self.heartbeat.let_go(run)

    async def close(self) -> None:
        """Wait until every claim under way has come back: what nobody waits for is given back."""
        await self._claims.close()

    async def _claim(self, job_id: UUID) -> Claim | None:
        """Claim, or not: then the hint or the reconciler brings the job again."""
        try:
            return await self._claims.ask(job_id)
        except ServiceUnavailable:
            log.warning("could not claim, the database is away", job_id=str(job_id))
            return None

    async def _claim_all(self, job_ids: Sequence[UUID]) -> list[Claim | None]:
        """Within one beat or not at all: a lease must not be old before its job begins."""
        try:
            async with asyncio.timeout(self.heartbeat.beat_s):
                return await leases.claim(
                    self._database,
                    job_ids,
                    worker=self._worker,
                    lease_s=self.heartbeat.lease_s,
                    known=list(self._workflows),
                )
        except TimeoutError:
            raise ServiceUnavailable from None

    async def _give_back(self, claim: Claim | None) -> None:
        if claim is not None:
            await self._release(claim)

    async def _see_through(self, run: Run) -> None:
        try:
            outcome = await run.work
        except asyncio.CancelledError:
            run.work.cancel()
            if run.broken_off:
                note_stale(run.broken_off)
                return
            # The process is told to stop: the job goes back, its attempt refunded. arq must not see the
            # cancellation, it would run the same hint again.
            await despite_cancellation(self._release(run.claim))
        except LeaseLost:
            note_stale("the lease is gone")
        else:
            await despite_cancellation(self._finish(run, outcome))

    async def _work(self, claim: Claim) -> Outcome:
        """Run the workflow. What it raises becomes the reason why the job failed."""
        started = time.monotonic()
        try:
            async with asyncio.timeout(self._job_timeout_s) as deadline:
                result = await self._execute(claim)
        except LeaseLost:
            raise
        except Exception as error:  # noqa: BLE001 - a workflow may raise anything; the job ends with it
            if deadline.expired():
                return failed(JobTimeout(f"The job ran longer than {self._job_timeout_s:g} s."))
            reason = innermost(error)
            if isinstance(reason, LeaseLost):
                raise reason from None
            return failed(reason if isinstance(reason, JobFailure) else unexpected(claim, reason))
        finally:
            JOB_SECONDS.labels(claim.workflow_name).observe(time.monotonic() - started)
        return Outcome(status=JobStatus.COMPLETED, result_json=result)

    async def _execute(self, claim: Claim) -> str:
        workflow = self._workflows[claim.workflow_name]
        earlier = await self._books.earlier(claim) if claim.claim > 1 else NOTHING
        context = JobContext(self._books, claim, self._model, self._prices, self._budget, earlier)
        request = msgspec.json.decode(claim.input_json, type=workflow.input_type)
        output = await workflow.run(request, context)
        return result_json(output)

    async def _finish(self, run: Run, outcome: Outcome) -> None:
        claim = run.claim
        # A beat that looks between the commit and its answer would take the ending for a loss.
        run.is_ending = True
        ending = await insist(lambda: self._end(claim, outcome))
        if ending is None:
            note_stale("the lease was lost, the result is dropped")
            return
        JOBS_FINISHED.labels(claim.workflow_name, outcome.status.value, outcome.error_code or "").inc()
        log.info("job ended", status=outcome.status.value, error_code=outcome.error_code)
        await failpoints.hit("run.after-finish-before-wake")
        await self._announcements.ask(ending)

    async def _end(self, claim: Claim, outcome: Outcome) -> Ending | None:
        await failpoints.hit("run.before-finish")
        return await self._endings.ask((claim, outcome))

    async def _end_all(self, ended: Sequence[tuple[Claim, Outcome]]) -> list[Ending | None]:
        return await endings.finish(self._database, ended)

    async def _announce_all(self, ended: Sequence[Ending]) -> list[None]:
        await announce(self._queue, ended)
        return [None] * len(ended)

    async def _release(self, claim: Claim) -> None:
        try:
            await failpoints.hit("release.before-write")
            hint = await leases.release(self._database, claim)
        except ServiceUnavailable:
            log.warning("could not give the job back, its lease has to run out")
            return
        if hint is not None:
            log.info("job given back")
            await self._queue.wake([hint])


async def despite_cancellation(write: Coroutine[Any, Any, None]) -> None:
    """See a last write through although the process is stopping; a second cancellation does not stop it either."""
    task = asyncio.create_task(write)
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():
                return


def note_stale(reason: str) -> None:
    STALE_WRITES.inc()
    log.warning("job broken off", reason=reason)


def _size(ended: tuple[Claim, Outcome]) -> int:
    return len(ended[1].result_json or "")


def innermost(error: Exception) -> Exception:
    """The reason inside the groups that task groups wrap around it: our own kinds of failure before others."""
    if not isinstance(error, ExceptionGroup):
        return error
    reasons = [innermost(inner) for inner in error.exceptions]
    return next((reason for reason in reasons if isinstance(reason, LeaseLost | JobFailure)), reasons[0])


def failed(failure: JobFailure) -> Outcome:
    return Outcome(
        status=JobStatus.FAILED, error_code=failure.code, error_message=storable(failure.message)[:4000]
    )


def unexpected(claim: Claim, error: Exception) -> JobFailure:
    """A workflow raised what it should not. Its text stays out of log and job: it may quote the prompt."""
    frames = traceback.format_tb(error.__traceback__)[-5:]
    log.error("workflow raised", error=type(error).__name__, frames=frames)
    return WorkflowError(
        f"The workflow {claim.workflow_name} raised {type(error).__name__}; the log has where, under this job's id."
    )


def result_json(output: msgspec.Struct) -> str:
    """The output as JSON that PostgreSQL can hold: a model may put NUL or half a surrogate pair anywhere."""
    try:
        text = msgspec.json.encode(output).decode()
    except UnicodeEncodeError:
        text = msgspec.json.encode(_clean(msgspec.to_builtins(output))).decode()
    if "\\u0000" in text:
        text = msgspec.json.encode(_clean(msgspec.json.decode(text))).decode()
    return text


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return storable(value)
    if isinstance(value, list):
        return [_clean(item) for item in value]
    if isinstance(value, dict):
        return {_clean(key): _clean(item) for key, item in value.items()}
    return value
