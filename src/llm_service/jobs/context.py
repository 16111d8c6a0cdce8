"""What a running workflow may do: ask the model, each call written into the ledger before and after.

A step that an earlier attempt was answered is read from the ledger, not asked again.
"""

import asyncio
from decimal import Decimal
from typing import TypeVar

import msgspec

from llm_service import failpoints
from llm_service.errors import BudgetExceeded, JobFailure, OutputValidationError
from llm_service.jobs.bookkeeping import Bookkeeper
from llm_service.jobs.store.leases import Claim
from llm_service.jobs.store.ledger import CallResult, Earlier, EndedCall, NewCall, Spent
from llm_service.llm.model import Message, Model, ModelAnswer, ModelRequest
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

CUT_OFF = "the answer was cut off at the model's output limit"


class Budget(msgspec.Struct, frozen=True, kw_only=True):
    """What a job may use over all its attempts; 0 is no limit.

    No call begins once a limit is reached. Calls under way at the same time may together end beyond it.
    """

    calls: int = 0
    tokens: int = 0
    cost_usd: Decimal = Decimal(0)

    def check(self, spent: Spent) -> None:
        """Raise `BudgetExceeded` when there must be no further call."""
        limits = (
            ("calls", self.calls, spent.calls),
            ("tokens", self.tokens, spent.tokens),
            ("USD", self.cost_usd, spent.cost_usd),
        )
        for what, most, used in limits:
            if most and used >= most:
                raise BudgetExceeded(
                    f"The job has used {Decimal(used):f} {what} of {Decimal(most):f}, and wanted another call."
                )


NOTHING = Earlier({}, Spent())


class JobContext:
    """The `workflows.base.Context` of one attempt of one job."""

    def __init__(
        self,
        books: Bookkeeper,
        held: Claim,
        model: Model,
        prices: Prices,
        budget: Budget,
        earlier: Earlier,
    ) -> None:
        self._books = books
        self._held = held
        self._model = model
        self._prices = prices
        self._answered = earlier.answers
        self._budget = budget
        self._spent = earlier.spent

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
        self._budget.check(self._spent)
        self._spent = self._spent._replace(calls=self._spent.calls + 1)
        call_id = await self._begin(step, request)
        try:
            answer = await self._call(call_id, request)
        except JobFailure as failure:
            await self._end(
                call_id,
                CallResult(model=self._model.name, error_code=failure.code, error_message=failure.message),
            )
            raise
        await failpoints.hit("run.after-model-answer-before-ledger")
        text = storable(answer.text)
        if answer.is_cut_off:
            log.warning("the model's answer was cut off at its output limit", step=step)
        cost = self._prices.cost_usd(self._model.provider, self._model.name, answer)
        self._spent = self._spent._replace(
            tokens=self._spent.tokens + (answer.input_tokens or 0) + (answer.output_tokens or 0),
            cost_usd=self._spent.cost_usd + (cost or 0),
        )
        await self._end(
            call_id,
            CallResult(
                model=storable(answer.model)[:255],
                answer=text,
                input_tokens=answer.input_tokens,
                output_tokens=answer.output_tokens,
                cost_usd=cost,
                retries=answer.retries,
                error_message=CUT_OFF if answer.is_cut_off else None,
            ),
        )
        await failpoints.hit("run.after-ledger-before-next-step")
        return text

    async def _begin(self, step: str, request: ModelRequest) -> int:
        prompt = storable(msgspec.json.encode(request.messages).decode()) if self._held.debug_mode else None
        return await self._books.begin(
            NewCall(self._held, step, self._model.provider, self._model.name, prompt)
        )

    async def _call(self, call_id: int, request: ModelRequest) -> ModelAnswer:
        provider = self._model.provider
        notes: list[asyncio.Task[None]] = []
        with MODEL_SECONDS.labels(provider).time():
            try:
                answer = await self._model.answer(
                    request,
                    lambda wait: notes.append(
                        asyncio.create_task(self._books.note_wait(self._held, call_id, wait))
                    ),
                )
            except JobFailure as failure:
                MODEL_CALLS.labels(provider, failure.code).inc()
                raise
            finally:
                await _end_all(notes)
        MODEL_CALLS.labels(provider, "cut_off" if answer.is_cut_off else "ok").inc()
        MODEL_TOKENS.labels(provider, "input").inc(answer.input_tokens or 0)
        MODEL_TOKENS.labels(provider, "output").inc(answer.output_tokens or 0)
        return answer

    async def _end(self, call_id: int, result: CallResult) -> None:
        await self._books.end(EndedCall(self._held, call_id, result))


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
