"""Submit a job: check it, commit it, wake a worker. In this order: the row first, the hint second."""

from collections.abc import Collection, Mapping
from typing import Any
from uuid import UUID

import msgspec
from uuid_utils.compat import uuid7

from llm_service import failpoints
from llm_service.db import Database
from llm_service.errors import (
    IdempotencyKeyReused,
    InvalidInputData,
    JobNotFound,
    JobNotRetryable,
    UnknownWorkflow,
    ValidationError,
)
from llm_service.jobs.batch import Batcher, Committed
from llm_service.jobs.model import UNFINISHED
from llm_service.jobs.queue import JobQueue
from llm_service.jobs.secrets import SecretBox
from llm_service.jobs.store import intake
from llm_service.jobs.store.intake import Accepted, NewJob
from llm_service.jobs.store.leases import Hint
from llm_service.jobs.turns import Turns
from llm_service.metrics import JOBS_SUBMITTED
from llm_service.webhooks.address import check_url
from llm_service.webhooks.signing import UnusableSecret, check_secret
from llm_service.workflows.base import Workflow


class Submission(msgspec.Struct, frozen=True, kw_only=True):
    """What a caller asks for. `input_json` is the object as it was sent, byte for byte."""

    workflow_name: str
    input_json: bytes
    user_id: UUID | None = None
    username: str | None = None
    action: str | None = None
    webhook_url: str | None = None
    webhook_secret: str | None = None
    priority: int = 0
    debug_mode: bool = False


LONGEST = 300
"""Characters of a reason that are passed on."""
_CARRIED_OVER = ("workflow_name", "user_id", "username", "action", "webhook_url", "priority", "debug_mode")


class IdempotencyClaim(msgspec.Struct, frozen=True):
    """An Idempotency-Key and the SHA-256 of the body that came with it."""

    key: str
    body_hash: bytes


class Desk:
    """Where jobs are handed in."""

    def __init__(
        self,
        *,
        database: Database,
        queue: JobQueue,
        workflows: Mapping[str, Workflow[Any, Any]],
        secrets: SecretBox,
        allowed_hosts: Collection[str],
        max_attempts: int,
    ) -> None:
        self.workflows = workflows
        self._database = database
        self._queue = queue
        self._secrets = secrets
        self._allowed_hosts = allowed_hosts
        self._max_attempts = max_attempts
        self._turns = Turns()
        self._batcher = Batcher(database, self._wake)

    def check(self, submission: Submission) -> int:
        """Check everything that can be checked without writing; the number of model calls to expect.

        Raises `UnknownWorkflow`, `UnsafeWebhookURL` or `InvalidInputData`.
        """
        workflow = self.workflows.get(submission.workflow_name)
        if workflow is None:
            raise UnknownWorkflow(
                "workflow_name names no workflow of this service.",
                workflow_name=submission.workflow_name,
                valid_values=sorted(self.workflows),
            )
        if submission.webhook_url is not None:
            check_url(submission.webhook_url, self._allowed_hosts)
        if submission.webhook_secret:
            try:
                check_secret(submission.webhook_secret)
            except UnusableSecret as error:
                raise ValidationError(error.message, ["body", "webhook_secret"]) from None
        return workflow.calls(decode_input(submission.input_json, workflow))

    async def submit(
        self, submission: Submission, *, request_id: str, once: IdempotencyClaim | None = None
    ) -> tuple[Accepted, bool]:
        """Accept a job; with a key, at most once. Says whether the answer is that of an earlier request.

        When this returns the job is committed. Raises what `check` does, `IdempotencyKeyReused`, and
        `ServiceUnavailable`.
        """
        self.check(submission)
        job = self._new_job(submission, request_id)
        await failpoints.hit("submit.before-commit")
        if once is None:
            return await self._batcher.add(job), False
        accepted = await intake.add_once(self._database, job, key=once.key, body_hash=once.body_hash)
        if accepted.body_hash is not None:
            return self._replay(accepted, once), True
        await failpoints.hit("submit.after-commit-before-enqueue")
        await self._wake([(job, accepted)])
        return accepted, False

    async def retry(
        self, job_id: UUID, *, request_id: str, priority: int | None = None, delay_s: float = 0
    ) -> Accepted:
        """Run a finished job again, as a new job with the same request and `retried_from`.

        With `delay_s` no worker takes it before so many seconds have passed.

        Raises `JobNotFound`, `JobNotRetryable` for an unfinished job, and what `check` does.
        """
        earlier = await intake.get_for_retry(self._database, job_id)
        if earlier is None:
            raise JobNotFound(job_id)
        if earlier.status in UNFINISHED:
            raise JobNotRetryable(
                f"A job that is {earlier.status} can't be retried; wait for its end or cancel it.",
                status=earlier.status,
            )
        submission = Submission(
            **{name: getattr(earlier, name) for name in _CARRIED_OVER}, input_json=earlier.input_json.encode()
        )
        self.check(submission)
        job = msgspec.structs.replace(
            self._new_job(submission, request_id),
            webhook_secret=earlier.webhook_secret,
            retried_from=job_id,
            priority=submission.priority if priority is None else priority,
            delay_s=delay_s,
        )
        return await self._batcher.add(job)

    async def close(self) -> None:
        """Wait until everybody who has handed something in has an answer."""
        await self._batcher.close()

    async def _wake(self, committed: Committed) -> None:
        """The jobs are committed: now the workers may know."""
        hints, behind = [], []
        for job, accepted in committed:
            JOBS_SUBMITTED.labels(job.workflow_name).inc()
            if job.delay_s:
                continue  # the reconciler tells when its time has come
            hints.append(Hint(job.id, 0, job.workflow_name, job.priority, accepted.queued_at))
            behind.append(self._turns.take(job.user_id or job.username, accepted.queued_at))
        await self._queue.wake(hints, behind)

    def _new_job(self, submission: Submission, request_id: str) -> NewJob:
        return NewJob(
            id=uuid7(),
            workflow_name=submission.workflow_name,
            priority=submission.priority,
            input_json=submission.input_json.decode(),
            user_id=submission.user_id,
            username=submission.username,
            action=submission.action,
            webhook_url=submission.webhook_url,
            webhook_secret=self._secrets.seal(submission.webhook_secret or None),
            debug_mode=submission.debug_mode,
            max_attempts=self._max_attempts,
            request_id=request_id,
        )

    def _replay(self, earlier: Accepted, once: IdempotencyClaim) -> Accepted:
        if earlier.body_hash != once.body_hash:
            raise IdempotencyKeyReused(
                "This Idempotency-Key was used with another body; a key belongs to one request.",
                idempotency_key=once.key,
            )
        return earlier


def decode_input(input_json: bytes, workflow: Workflow[Any, Any]) -> msgspec.Struct:
    """The input as its workflow has it. Raises `InvalidInputData` naming the place."""
    try:
        decoded: msgspec.Struct = msgspec.json.decode(input_json, type=workflow.input_type)
    except msgspec.ValidationError as error:
        message, place = locate(error)
        raise InvalidInputData(message, ["body", "input_data", *place]) from None
    return decoded


def locate(error: msgspec.ValidationError) -> tuple[str, list[str | int]]:
    """Split msgspec's message into what is wrong and where: `Expected ... - at `$.a[0].b``."""
    # What is wrong may repeat a value of the caller's: of any length, and with what looks like a place inside.
    text, _, path = str(error).rpartition(" - at `") if " - at `" in str(error) else (str(error), "", "")
    text = text[:LONGEST]
    path = path.rstrip("`").removeprefix("$").removeprefix(".")
    place: list[str | int] = []
    for part in path.replace("[", ".[").split("."):
        if part.startswith("["):
            inside = part.strip("[]")
            place.append(int(inside) if inside.isdecimal() else inside)
        elif part:
            place.append(part)
    if text.startswith("Object missing required field `"):
        place.append(text.split("`")[1])
        text = "this field is required"
    return text, place
