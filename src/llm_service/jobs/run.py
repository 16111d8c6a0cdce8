"""Run one job: claim it, work, end it. Every write names the lease token of its claim."""

import asyncio
import time
import traceback
from collections.abc import Coroutine, Mapping
from typing import Any
from uuid import UUID

import msgspec
import structlog

from llm_service import failpoints
from llm_service.db import Database, insist
from llm_service.errors import JobFailure, JobTimeout, ServiceUnavailable, WorkflowError
from llm_service.jobs.context import NOTHING, Budget, JobContext, LeaseLost, storable
from llm_service.jobs.heartbeat import Heartbeat
from llm_service.jobs.model import JobStatus
from llm_service.jobs.queue import JobQueue
from llm_service.jobs.report import announce
from llm_service.jobs.store import leases, ledger
from llm_service.jobs.store.leases import Claim, Ending
from llm_service.llm.model import Model
from llm_service.llm.prices import Prices
from llm_service.logs import get_logger
from llm_service.metrics import JOB_SECONDS, JOB_WAIT_SECONDS, JOBS_FINISHED, JOBS_RUNNING, STALE_WRITES
from llm_service.workflows.base import Workflow

log = get_logger(__name__)

CLAIMS_AT_ONCE = 5
"""Of the ten connections: hundreds of jobs that begin together must not hold up the ends of others."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """How a run came out. Without a status it did not end the job: it was broken off or is to be given back."""

    status: JobStatus | None = None
    result_json: str | None = None
    error_code: str | None = None
    error_message: str | None = None


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
        self._claim_turns = asyncio.Semaphore(CLAIMS_AT_ONCE)
        self._budget = budget

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

    async def _claim(self, job_id: UUID) -> Claim | None:
        """Claim within one beat or not at all: the hint or the reconciler brings the job again."""
        try:
            async with self._claim_turns, asyncio.timeout(self.heartbeat.beat_s):
                return await leases.claim(
                    self._database,
                    job_id,
                    worker=self._worker,
                    lease_s=self.heartbeat.lease_s,
                    known=tuple(self._workflows),
                )
        except (ServiceUnavailable, TimeoutError):
            log.warning("could not claim, the database is away", job_id=str(job_id))
            return None

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
        earlier = await insist(lambda: ledger.earlier(self._database, claim)) if claim.claim > 1 else NOTHING
        context = JobContext(self._database, claim, self._model, self._prices, self._budget, earlier)
        request = msgspec.json.decode(claim.input_json, type=workflow.input_type)
        output = await workflow.run(request, context)
        return result_json(output)

    async def _finish(self, run: Run, outcome: Outcome) -> None:
        claim = run.claim
        assert outcome.status is not None  # noqa: S101 - narrows the type
        status = outcome.status
        # A beat that looks between the commit and its answer would take the ending for a loss.
        run.is_ending = True
        ending = await insist(lambda: self._write(claim, outcome, status))
        if ending is None:
            note_stale("the lease was lost, the result is dropped")
            return
        JOBS_FINISHED.labels(claim.workflow_name, status.value, outcome.error_code or "").inc()
        log.info("job ended", status=status.value, error_code=outcome.error_code)
        await failpoints.hit("run.after-finish-before-wake")
        await announce(self._queue, [ending])

    async def _write(self, claim: Claim, outcome: Outcome, status: JobStatus) -> Ending | None:
        await failpoints.hit("run.before-finish")
        return await leases.finish(
            self._database,
            claim,
            status=status,
            result_json=outcome.result_json,
            error_code=outcome.error_code,
            error_message=outcome.error_message,
        )

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
