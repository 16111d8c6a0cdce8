"""The ledger of model calls: a row before each call, its answer before the next step begins."""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import NamedTuple
from uuid import UUID

import msgspec
import sqlalchemy as sa

from llm_service.db import Database
from llm_service.jobs.store.arrays import by_column, unnested
from llm_service.jobs.store.leases import Claim, fenced


class Spent(NamedTuple):
    """What a job has used: calls begun, tokens as far as they were said, cost as far as it is known."""

    calls: int = 0
    tokens: int = 0
    cost_usd: Decimal = Decimal(0)


class Earlier(NamedTuple):
    """What earlier attempts of a job left: answers by step, not to be asked again, and what they used."""

    answers: Mapping[str, str]
    spent: Spent


class CallResult(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a call. `answer` is set when it succeeded, `error_code` when it failed."""

    model: str
    answer: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cost_usd: Decimal | None = None
    retries: int = 0
    error_code: str | None = None
    error_message: str | None = None


_EARLIER = sa.text("""
SELECT step, CASE WHEN status = 'succeeded' THEN answer END AS answer,
       coalesce(input_tokens, 0) + coalesce(output_tokens, 0) AS tokens, coalesce(cost_usd, 0) AS cost_usd
  FROM llm_calls WHERE job_id = :job_id
""")


async def earlier(database: Database, held: Claim) -> Earlier:
    """What earlier attempts of the job have paid for."""
    async with database.statement() as connection:
        rows = (await connection.execute(_EARLIER, {"job_id": held.job_id})).all()
    answers = {row.step: row.answer for row in rows if row.answer is not None}
    costs = (row.cost_usd for row in rows)
    return Earlier(answers, Spent(len(rows), sum(row.tokens for row in rows), sum(costs, Decimal(0))))


class NewCall(NamedTuple):
    """A call that is about to be made, by the holder of a claim."""

    held: Claim
    step: str
    provider: str
    model: str
    prompt_json: str | None


_NEW_CALLS = {
    "job_ids": "uuid",
    "tokens": "uuid",
    "steps": "varchar",
    "providers": "varchar",
    "models": "varchar",
    "prompts": "text",
}
_BEGIN = sa.text(f"""
INSERT INTO llm_calls (job_id, claim, step, provider, model, prompt)
SELECT j.id, j.claims, mine.step, mine.provider, mine.model, CAST(mine.prompt AS jsonb)
  FROM {unnested(_NEW_CALLS)} AS mine (id, token, step, provider, model, prompt)
  JOIN llm_workflow_jobs j ON j.id = mine.id AND {fenced("mine.token")}
RETURNING job_id, step, id
""")  # noqa: S608 - put together from constants


async def begin(database: Database, calls: Sequence[NewCall]) -> list[int | None]:
    """Write down that calls are about to be made: their ids, in order; None where the lease was lost: make none."""
    rows = [
        (call.held.job_id, call.held.token, call.step, call.provider, call.model, call.prompt_json)
        for call in calls
    ]
    begun: dict[tuple[UUID, str], list[int]] = {}
    for job_id, step, call_id in await database.fetch(_BEGIN, by_column(_NEW_CALLS, rows)):
        begun.setdefault((job_id, step), []).append(call_id)
    return [ids.pop() if (ids := begun.get((call.held.job_id, call.step))) else None for call in calls]


_WAIT = sa.text(rf"""
UPDATE llm_calls c
   SET retries = :failures, error_message = 'waiting for ' || c.provider || ': ' || CAST(:reason AS text)
       || coalesce(', next try at ' || to_char(now() AT TIME ZONE 'UTC' + make_interval(secs => :seconds),
                                               'YYYY-MM-DD"T"HH24\:MI\:SS"Z"'), '')
  FROM llm_workflow_jobs j
 WHERE c.id = :call_id AND c.status = 'running' AND j.id = :job_id AND {fenced(":token")}
""").bindparams(sa.bindparam("seconds", type_=sa.Float))  # noqa: S608 - put together from constants


async def note_wait(
    database: Database, held: Claim, call_id: int, *, failures: int, reason: str, seconds: float | None
) -> None:
    """Write down why a call under way takes long, for whoever looks at the job meanwhile."""
    values = {
        "call_id": call_id,
        "job_id": held.job_id,
        "token": held.token,
        "failures": failures,
        "reason": reason,
        "seconds": seconds,
    }
    async with database.statement() as connection:
        await connection.execute(_WAIT, values)


_RESULTS = {
    "call_ids": "bigint",
    "job_ids": "uuid",
    "tokens": "uuid",
    "statuses": "varchar",
    "models": "varchar",
    "answers": "text",
    "input_tokens": "integer",
    "output_tokens": "integer",
    "costs": "numeric",
    "retries": "integer",
    "error_codes": "varchar",
    "error_messages": "text",
}
_GIVEN = "status, model, answer, input_tokens, output_tokens, cost_usd, retries, error_code, error_message"
# Also when it stands there already: the first try may have been committed and its answer lost.
_END = sa.text(f"""
UPDATE llm_calls c
   SET ({_GIVEN}) = ({", ".join(f"mine.{name}" for name in _GIVEN.split(", "))}), completed_at = now(),
       latency_ms = CAST(extract(epoch FROM now() - c.started_at) * 1000 AS integer)
  FROM {unnested(_RESULTS)} AS mine (id, job_id, token, {_GIVEN})
  JOIN llm_workflow_jobs j ON j.id = mine.job_id AND {fenced("mine.token")}
 WHERE c.id = mine.id AND c.status IN ('running', mine.status)
RETURNING c.id
""")  # noqa: S608 - put together from constants


class EndedCall(NamedTuple):
    """What became of a call of the holder of a claim."""

    held: Claim
    call_id: int
    result: CallResult


async def end(database: Database, calls: Sequence[EndedCall]) -> list[bool]:
    """Write down what became of calls. False where the lease was lost meanwhile: the answer is not ours to use."""
    rows = [
        (
            call.call_id,
            call.held.job_id,
            call.held.token,
            "succeeded" if call.result.error_code is None else "failed",
            *msgspec.structs.astuple(call.result),
        )
        for call in calls
    ]
    written = {row[0] for row in await database.fetch(_END, by_column(_RESULTS, rows))}
    return [call.call_id in written for call in calls]
