"""The workflow `driving_directions`: the way from one place to another, with what to watch for."""

from typing import Annotated

import msgspec

from llm_service.workflows.base import Context, Workflow
from llm_service.workflows.prompts import read_prompt


class DirectionsRequest(msgspec.Struct, frozen=True, kw_only=True):
    origin: Annotated[
        str,
        msgspec.Meta(description="Where the drive begins.", min_length=1, max_length=500, examples=["Brno"]),
    ]
    destination: Annotated[
        str,
        msgspec.Meta(description="Where it ends.", min_length=1, max_length=500, examples=["Prague"]),
    ]
    avoid: Annotated[
        list[Annotated[str, msgspec.Meta(min_length=1, max_length=500)]],
        msgspec.Meta(
            description="Roads, places or kinds of road to stay away from.",
            max_length=50,
            examples=[["toll roads", "the bridge at Ivančice"]],
        ),
    ] = []
    notes: Annotated[
        Annotated[str, msgspec.Meta(max_length=20_000)] | None,
        msgspec.Meta(
            description="What is known about the way, the vehicle and the travellers, in free text.",
            examples=["Take the D1 for 180 km. There is ice near Jihlava. We tow a caravan."],
        ),
    ] = None


class Step(msgspec.Struct, frozen=True, kw_only=True):
    instruction: Annotated[str, msgspec.Meta(description="What the driver does, in one sentence.")]
    road: Annotated[
        str | None, msgspec.Meta(description="The road's number or name as signposted; null when unknown.")
    ]
    distance_km: Annotated[
        Annotated[float, msgspec.Meta(ge=0, le=20_000)] | None,
        msgspec.Meta(description="Length of this step in kilometres; null when unknown."),
    ]


class Alternative(msgspec.Struct, frozen=True, kw_only=True):
    summary: Annotated[str, msgspec.Meta(description="The other way, in one sentence.")]
    road: Annotated[str | None, msgspec.Meta(description="Its main road; null when unknown.")]
    reason: Annotated[str | None, msgspec.Meta(description="When to prefer it; null when unknown.")]


class DirectionsResponse(msgspec.Struct, frozen=True, kw_only=True):
    steps: Annotated[
        list[Step],
        msgspec.Meta(
            description="The drive in order, from origin to destination.", min_length=1, max_length=60
        ),
    ]
    alternatives: Annotated[
        list[Alternative], msgspec.Meta(description="Other ways, when the first is closed.", max_length=10)
    ]
    cautions: Annotated[
        list[str], msgspec.Meta(description="What to avoid or watch for on the way.", max_length=30)
    ]


async def give_directions(request: DirectionsRequest, context: Context) -> DirectionsResponse:
    return await context.fill(
        "directions",
        system=read_prompt("driving_directions"),
        user=msgspec.json.encode(request).decode(),
        into=DirectionsResponse,
    )


WORKFLOW = Workflow(
    name="driving_directions",
    description="Describes the drive from one place to another, with alternatives and cautions.",
    version="1.0.0",
    input_type=DirectionsRequest,
    output_type=DirectionsResponse,
    run=give_directions,
    calls=lambda _request: 1,
)
