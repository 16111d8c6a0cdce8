"""Send a job's webhook again: the same message under the same id, on a schedule begun afresh."""

from uuid import UUID

import msgspec

from llm_service.db import Database
from llm_service.errors import JobNotFound, WebhookNotRedeliverable
from llm_service.jobs.queue import JobQueue
from llm_service.jobs.store import deliveries
from llm_service.logs import get_logger

log = get_logger(__name__)


class RedeliverAccepted(msgspec.Struct, frozen=True, kw_only=True):
    """The delivery that goes out again. `state` is `pending`, or what it was where a try is under way right now."""

    job_id: UUID
    webhook_id: str
    state: str


async def redeliver(database: Database, queue: JobQueue, job_id: UUID) -> RedeliverAccepted:
    """Make the webhook of a finished job due now, whatever became of it before. The row first, the hint second.

    A try that is under way is left to its end, and counts as the one asked for. Raises `JobNotFound`, and
    `WebhookNotRedeliverable` for an unfinished job and for one without a webhook_url.
    """
    standing = await deliveries.send_again(database, job_id)
    if standing is None:
        raise JobNotFound(job_id)
    if not standing.has_webhook:
        raise WebhookNotRedeliverable(
            "This job has no webhook: it was submitted without a webhook_url.", status=standing.status
        )
    if standing.webhook_id is None or standing.state is None:
        raise WebhookNotRedeliverable(
            f"The webhook of a job that is {standing.status} can't be sent again; it is sent when the job ends.",
            status=standing.status,
        )
    if standing.hint is not None:
        await queue.wake_webhooks([standing.hint])
        log.info("webhook goes out again", job_id=str(job_id), tries=standing.hint.tries)
    return RedeliverAccepted(job_id=job_id, webhook_id=standing.webhook_id, state=standing.state)
