"""Workflows that only a chaos run installs: many steps, one that kills its worker, one that blocks it."""

import os
import time

import msgspec

from llm_service.workflows.base import Context, Workflow


class StepsRequest(msgspec.Struct, frozen=True, kw_only=True):
    tag: str
    steps: int = 1


class StepsResponse(msgspec.Struct, frozen=True, kw_only=True):
    answers: list[str]


async def ask_in_steps(request: StepsRequest, context: Context) -> StepsResponse:
    answers = [
        await context.text(f"step/{number}", system="Answer.", user=f"{request.tag} step/{number}")
        for number in range(1, request.steps + 1)
    ]
    return StepsResponse(answers=answers)


async def kill_worker(_: StepsRequest, __: Context) -> StepsResponse:
    os._exit(137)


async def block_worker(request: StepsRequest, _: Context) -> StepsResponse:
    """`steps` is the number of seconds."""
    time.sleep(request.steps)  # noqa: ASYNC251 - this is the fault
    return StepsResponse(answers=[])


def _workflow(name: str, run: object) -> Workflow[StepsRequest, StepsResponse]:
    return Workflow(
        name=name,
        description="For the chaos suite.",
        version="1",
        input_type=StepsRequest,
        output_type=StepsResponse,
        run=run,  # type: ignore[arg-type]
        calls=lambda request: request.steps,
    )


STEPS = _workflow("steps", ask_in_steps)
POISON = _workflow("poison", kill_worker)
BLOCKING = _workflow("blocking", block_worker)
