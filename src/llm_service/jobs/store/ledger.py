"""The ledger of model calls: a row before each call, its answer before the next step begins."""

from decimal import Decimal
from typing import Any, NamedTuple

import msgspec
import sqlalchemy as sa

from llm_service.db import Database
from llm_service.jobs.store.leases import FENCE, Claim


class Answered(NamedTuple):
    """A step that an earlier attempt was answered: not to be asked again."""

    step: str
    answer: str


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


_ANSWERED = sa.text(
    "SELECT step, answer FROM llm_calls WHERE job_id = :job_id AND status = 'succeeded' AND answer IS NOT NULL"
)


async def answered(database: Database, held: Claim) -> dict[str, str]:
    """The answers that earlier attempts of the job have paid for, by step."""
    async with database.statement() as connection:
        rows = await connection.execute(_ANSWERED, {"job_id": held.job_id})
        return {row.step: row.answer for row in rows}


_BEGIN = sa.text(f"""
INSERT INTO llm_calls (job_id, claim, step, provider, model, prompt)
SELECT j.id, j.claims, :step, :provider, :model, CAST(CAST(:prompt AS text) AS jsonb)
  FROM llm_workflow_jobs j WHERE j.id = :job_id AND {FENCE}
RETURNING id
""")  # noqa: S608 - put together from constants


async def begin(
    database: Database, held: Claim, *, step: str, provider: str, model: str, prompt_json: str | None
) -> int | None:
    """Write down that a call is about to be made. None when the lease was lost: do not make it."""
    values: dict[str, Any] = {
        "job_id": held.job_id,
        "token": held.token,
        "step": step,
        "provider": provider,
        "model": model,
        "prompt": prompt_json,
    }
    async with database.statement() as connection:
        row = (await connection.execute(_BEGIN, values)).one_or_none()
    return row[0] if row is not None else None


_WAIT = sa.text(rf"""
UPDATE llm_calls c
   SET retries = :failures, error_message = 'waiting for ' || c.provider || ': ' || CAST(:reason AS text)
       || coalesce(', next try at ' || to_char(now() AT TIME ZONE 'UTC' + make_interval(secs => :seconds),
                                               'YYYY-MM-DD"T"HH24\:MI\:SS"Z"'), '')
  FROM llm_workflow_jobs j
 WHERE c.id = :call_id AND c.status = 'running' AND j.id = :job_id AND {FENCE}
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


# Also when it stands there already: the first try may have been committed and its answer lost.
_END = sa.text(f"""
UPDATE llm_calls c
   SET status = CAST(:status AS varchar), completed_at = now(), model = :model, answer = :answer,
       latency_ms = CAST(extract(epoch FROM now() - c.started_at) * 1000 AS integer),
       input_tokens = :input_tokens, output_tokens = :output_tokens, cost_usd = :cost_usd,
       retries = :retries, error_code = :error_code, error_message = :error_message
  FROM llm_workflow_jobs j
 WHERE c.id = :call_id AND c.status IN ('running', CAST(:status AS varchar))
   AND j.id = :job_id AND {FENCE}
RETURNING c.id
""")  # noqa: S608 - put together from constants


async def end(database: Database, held: Claim, call_id: int, result: CallResult) -> bool:
    """Write down what became of a call. False when the lease was lost meanwhile: the answer is not ours to use."""
    values = msgspec.structs.asdict(result) | {
        "call_id": call_id,
        "job_id": held.job_id,
        "token": held.token,
        "status": "succeeded" if result.error_code is None else "failed",
    }
    async with database.statement() as connection:
        return (await connection.execute(_END, values)).first() is not None
