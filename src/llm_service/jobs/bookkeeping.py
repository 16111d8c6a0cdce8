"""Writes the ledger of model calls for all runs of one process, those of one moment together."""

import contextlib

from llm_service.db import Database, insist
from llm_service.errors import ServiceUnavailable
from llm_service.jobs.store import ledger
from llm_service.jobs.store.leases import Claim
from llm_service.jobs.store.ledger import Earlier, EndedCall, NewCall
from llm_service.llm.model import Wait
from llm_service.together import Together


class LeaseLost(Exception):
    """The job is no longer ours: stop, write nothing."""


class Bookkeeper:
    """One for each worker process. What it can't write because the database is away it insists on."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._begun = Together[NewCall, int | None](lambda calls: ledger.begin(database, calls))
        self._ended = Together[EndedCall, bool](lambda calls: ledger.end(database, calls), weigh=_size)

    async def earlier(self, held: Claim) -> Earlier:
        """What earlier attempts of the job have paid for."""
        return await insist(lambda: ledger.earlier(self._database, held))

    async def begin(self, call: NewCall) -> int:
        """Write down that a call is about to be made; its id. Raises `LeaseLost`: do not make it."""
        call_id = await insist(lambda: self._begun.ask(call))
        if call_id is None:
            raise LeaseLost
        return call_id

    async def end(self, call: EndedCall) -> None:
        """Write down what became of a call. Raises `LeaseLost`: the answer is not ours to use."""
        if not await insist(lambda: self._ended.ask(call)):
            raise LeaseLost

    async def note_wait(self, held: Claim, call_id: int, wait: Wait) -> None:
        """Write down why a call takes long. For information: the ledger does not need it."""
        with contextlib.suppress(ServiceUnavailable):
            await ledger.note_wait(
                self._database,
                held,
                call_id,
                failures=wait.failures,
                reason=wait.reason,
                seconds=wait.seconds,
            )


def _size(call: EndedCall) -> int:
    return len(call.result.answer or "")
