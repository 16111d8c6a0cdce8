"""The workflow `completion`: one prompt, one answer in plain text."""

from typing import Annotated

import msgspec

from llm_service.workflows.base import Context, Workflow
from llm_service.workflows.prompts import read_prompt


class CompletionRequest(msgspec.Struct, frozen=True, kw_only=True):
    prompt: Annotated[
        str,
        msgspec.Meta(
            description="What the model is asked.",
            min_length=1,
            max_length=200_000,
            examples=["Summarise in two sentences: the river reached 4.2 m at noon and is still rising."],
        ),
    ]
    system: Annotated[
        Annotated[str, msgspec.Meta(max_length=20_000)] | None,
        msgspec.Meta(description="How the model should answer; without it, briefly and plainly."),
    ] = None


class CompletionResponse(msgspec.Struct, frozen=True, kw_only=True):
    text: Annotated[str, msgspec.Meta(description="The model's answer.")]


async def complete(request: CompletionRequest, context: Context) -> CompletionResponse:
    system = request.system or read_prompt("completion")
    return CompletionResponse(text=await context.text("completion", system=system, user=request.prompt))


WORKFLOW = Workflow(
    name="completion",
    description="Answers one prompt in plain text.",
    version="1.0.0",
    input_type=CompletionRequest,
    output_type=CompletionResponse,
    run=complete,
    calls=lambda _request: 1,
)
