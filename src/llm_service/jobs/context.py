"""What a running workflow may do: ask the model, each call written into the ledger before and after.

A step that an earlier attempt was answered is read from the ledger, not asked again.
"""

import asyncio
import contextlib
from collections.abc import Mapping
from typing import TypeVar

import msgspec

from llm_service import failpoints
from llm_service.db import Database, insist
from llm_service.errors import JobFailure, OutputValidationError, ServiceUnavailable
from llm_service.jobs.store import ledger
from llm_service.jobs.store.leases import Claim
from llm_service.llm.model import Message, Model, ModelAnswer, ModelRequest, Wait
from llm_service.llm.prices import Prices
from llm_service.llm.schema import strict_schema
from llm_service.logs import get_logger
from llm_service.metrics import MODEL_CALLS, MODEL_SECONDS, MODEL_TOKENS

log = get_logger(__name__)

T = TypeVar("T", bound=msgspec.Struct)

REPAIR = """Your answer could not be used: {problem}.
Answer again, with one JSON object that matches the schema and nothing else."""
SCHEMA = """Answer with one JSON object that matches this JSON Schema, and nothing else:
{schema}"""


class LeaseLost(Exception):
    """The job is no longer ours: stop, write nothing."""


class JobContext:
    """The `workflows.base.Context` of one attempt of one job."""

    def __init__(
        self, database: Database, held: Claim, model: Model, prices: Prices, answered: Mapping[str, str]
    ) -> None:
        self._database = database
        self._held = held
        self._model = model
        self._prices = prices
        self._answered = answered

    async def text(self, step: str, *, system: str, user: str) -> str:
        messages = (Message("system", system), Message("user", user))
        return await self._ask(step, ModelRequest(messages=messages))

    async def fill(self, step: str, *, system: str, user: str, into: type[T]) -> T:
        schema = strict_schema(into)
        asked = (
            Message("system", f"{system}\n\n{SCHEMA.format(schema=msgspec.json.encode(schema).decode())}"),
            Message("user", user),
        )
        request = ModelRequest(messages=asked, schema=schema, schema_name=into.__name__)
        answer = await self._ask(step, request)
        try:
            return _decode(answer, into)
        except msgspec.DecodeError as error:
            log.info("answer breaks the schema, asking for a repair", step=step, schema=into.__name__)
            repair = Message("user", REPAIR.format(problem=error))
        repaired = msgspec.structs.replace(request, messages=(*asked, Message("assistant", answer), repair))
        answer = await self._ask(f"{step}/repair", repaired)
        try:
            return _decode(answer, into)
        except msgspec.DecodeError as error:
            raise OutputValidationError(
                f"The model's answer to the step {step!r} broke its schema twice: {error}."
            ) from None

    async def _ask(self, step: str, request: ModelRequest) -> str:
        if (known := self._answered.get(step)) is not None:
            log.info("step answered by an earlier attempt", step=step)
            return known
        call_id = await self._begin(step, request)
        try:
            answer = await self._call(call_id, request)
        except JobFailure as failure:
            await self._end(
                call_id,
                ledger.CallResult(
                    model=self._model.name, error_code=failure.code, error_message=failure.message
                ),
            )
            raise
        await failpoints.hit("run.after-model-answer-before-ledger")
        text = storable(answer.text)
        cost = self._prices.cost_usd(self._model.provider, self._model.name, answer)
        await self._end(
            call_id,
            ledger.CallResult(
                model=storable(answer.model)[:255],
                answer=text,
                input_tokens=answer.input_tokens,
                output_tokens=answer.output_tokens,
                cost_usd=cost,
                retries=answer.retries,
            ),
        )
        await failpoints.hit("run.after-ledger-before-next-step")
        return text

    async def _begin(self, step: str, request: ModelRequest) -> int:
        prompt = storable(msgspec.json.encode(request.messages).decode()) if self._held.debug_mode else None
        call_id = await insist(
            lambda: ledger.begin(
                self._database,
                self._held,
                step=step,
                provider=self._model.provider,
                model=self._model.name,
                prompt_json=prompt,
            )
        )
        if call_id is None:
            raise LeaseLost
        return call_id

    async def _call(self, call_id: int, request: ModelRequest) -> ModelAnswer:
        provider = self._model.provider
        notes: list[asyncio.Task[None]] = []
        with MODEL_SECONDS.labels(provider).time():
            try:
                answer = await self._model.answer(
                    request, lambda wait: notes.append(asyncio.create_task(self._note_wait(call_id, wait)))
                )
            except JobFailure as failure:
                MODEL_CALLS.labels(provider, failure.code).inc()
                raise
            finally:
                await _end_all(notes)
        MODEL_CALLS.labels(provider, "ok").inc()
        MODEL_TOKENS.labels(provider, "input").inc(answer.input_tokens or 0)
        MODEL_TOKENS.labels(provider, "output").inc(answer.output_tokens or 0)
        return answer

    async def _note_wait(self, call_id: int, wait: Wait) -> None:
        with contextlib.suppress(ServiceUnavailable):  # it is for information, the ledger does not need it
            await ledger.note_wait(
                self._database,
                self._held,
                call_id,
                failures=wait.failures,
                reason=wait.reason,
                seconds=wait.seconds,
            )

    async def _end(self, call_id: int, result: ledger.CallResult) -> None:
        if not await insist(lambda: ledger.end(self._database, self._held, call_id, result)):
            raise LeaseLost


async def _end_all(notes: list[asyncio.Task[None]]) -> None:
    """The wait is over: what was not yet written of it need not be. Raises what went wrong, but for that."""
    for note in notes:
        note.cancel()
    for end in await asyncio.gather(*notes, return_exceptions=True):
        if isinstance(end, Exception):
            raise end


def storable(text: str) -> str:
    """Text as PostgreSQL can hold it: NUL and lone surrogates become U+FFFD."""
    if text.isascii() and "\x00" not in text:
        return text
    return text.encode("utf-8", errors="replace").decode("utf-8").replace("\x00", "\ufffd")


def _decode(answer: str, into: type[T]) -> T:
    """Decode an answer; one wrapped in a Markdown fence counts, as many models send it so."""
    text = answer.strip()
    if text.startswith("```"):
        text = text.split("\n", 1)[-1].rsplit("```", 1)[0]
    return msgspec.json.decode(text, type=into)
