"""Cancel a job, or delete jobs for good. The row first; the worker that runs it hears of it right after."""

from collections.abc import Sequence
from uuid import UUID

from llm_service.db import Database
from llm_service.errors import JobNotCancellable, JobNotFound
from llm_service.jobs.model import JobStatus
from llm_service.jobs.queue import JobQueue
from llm_service.jobs.report import announce
from llm_service.jobs.store import endings, leases, removal
from llm_service.logs import get_logger

log = get_logger(__name__)


async def cancel(database: Database, queue: JobQueue, job_id: UUID) -> None:
    """End an unfinished job as cancelled; cancelling a cancelled job changes nothing.

    A pending job is cancelled at once. So is a running one: what its worker does from then on is refused, and
    its model call is broken off, within milliseconds through Redis and by the next heartbeat without it.
    Raises `JobNotFound`, and `JobNotCancellable` for a job that is completed or failed.
    """
    ending = await endings.cancel(database, job_id)
    if ending is not None:
        log.info("job cancelled", job_id=str(job_id))
        await queue.announce_cancel([job_id])
        await announce(queue, [ending])
        return
    status = await leases.status_of(database, job_id)
    if status is None:
        raise JobNotFound(job_id)
    if status != JobStatus.CANCELLED:
        raise JobNotCancellable(
            f"A job that is {status} can't be cancelled; only pending and processing ones can.", status=status
        )


async def delete(database: Database, queue: JobQueue, job_ids: Sequence[UUID]) -> list[UUID]:
    """Delete jobs and all that belongs to them; unfinished ones are stopped and told to nobody.

    Returns the ids that were there. A deleted job's idempotency key stays: the same request is not run again.
    """
    deleted = await removal.delete(database, job_ids)
    await queue.announce_cancel([job.id for job in deleted if job.status == JobStatus.PROCESSING])
    log.info("jobs deleted", asked=len(job_ids), deleted=len(deleted))
    return [job.id for job in deleted]
