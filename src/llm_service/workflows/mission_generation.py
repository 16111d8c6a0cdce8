"""The workflow `mission_generation`: a preparedness report for one household.

An outline first, then every section at the same time, then the checklist and the product bundles that fit.
"""

import asyncio
from typing import Annotated, Any

import msgspec

from llm_service.workflows.base import Context, Workflow
from llm_service.workflows.prompts import read_prompt

MAX_SECTIONS = 8
USUAL_SECTIONS = 6

ShortText = Annotated[str, msgspec.Meta(min_length=1, max_length=500)]
LongText = Annotated[str, msgspec.Meta(max_length=10_000)]


class ProductBundle(msgspec.Struct, frozen=True, kw_only=True):
    name: Annotated[str, msgspec.Meta(min_length=1, max_length=500, examples=["Water kit"])]
    description: LongText | None = None
    items: Annotated[
        list[ShortText], msgspec.Meta(max_length=100, examples=[["water filter", "20 litre canister"]])
    ] = []


class MissionRequest(msgspec.Struct, frozen=True, kw_only=True):
    scenarios: Annotated[
        list[ShortText],
        msgspec.Meta(
            description="What to prepare for.",
            min_length=1,
            max_length=20,
            examples=[["flood", "power outage"]],
        ),
    ]
    location: Annotated[
        str,
        msgspec.Meta(
            description="Where the household lives.", min_length=1, max_length=500, examples=["Brno"]
        ),
    ]
    family_size: Annotated[int, msgspec.Meta(description="People in the household.", ge=1, le=1000)]
    duration_days: Annotated[
        int, msgspec.Meta(description="Days to hold out without help.", ge=1, le=3650, examples=[7])
    ]
    mobility: Annotated[
        LongText | None,
        msgspec.Meta(
            description="How the household can move.", examples=["one car, grandmother uses a wheelchair"]
        ),
    ] = None
    family_details: Annotated[
        LongText | Annotated[list[ShortText | dict[str, Any]], msgspec.Meta(max_length=100)] | None,
        msgspec.Meta(
            description="The people and animals of the household: free text, or one entry each.",
            examples=[["grandmother (78) needs insulin", "a dog"]],
        ),
    ] = None
    product_bundles: Annotated[
        list[ProductBundle],
        msgspec.Meta(description="Bundles that may be recommended; no others will be.", max_length=100),
    ] = []


class Outline(msgspec.Struct, frozen=True, kw_only=True):
    title: Annotated[str, msgspec.Meta(description="The report's title, at most ten words.")]
    summary: Annotated[str, msgspec.Meta(description="The situation and the plan in two to four sentences.")]
    headings: Annotated[
        list[Annotated[str, msgspec.Meta(min_length=1)]],
        msgspec.Meta(
            description="The sections' headings, in reading order.", min_length=1, max_length=MAX_SECTIONS
        ),
    ]


class SectionText(msgspec.Struct, frozen=True, kw_only=True):
    body: Annotated[str, msgspec.Meta(description="The section in one to three short paragraphs.")]
    actions: Annotated[
        list[str],
        msgspec.Meta(description="What the household does, one imperative sentence each.", max_length=12),
    ]


class ChecklistItem(msgspec.Struct, frozen=True, kw_only=True):
    item: Annotated[str, msgspec.Meta(description="One thing to have.")]
    quantity: Annotated[
        str | None, msgspec.Meta(description="How much for the whole household and duration, with its unit.")
    ]
    reason: Annotated[str | None, msgspec.Meta(description="What it is for.")]


class RecommendedBundle(msgspec.Struct, frozen=True, kw_only=True):
    name: Annotated[str, msgspec.Meta(description="The name of a given product bundle, unchanged.")]
    reason: Annotated[str, msgspec.Meta(description="What it covers for this household, in one sentence.")]


class Recommendation(msgspec.Struct, frozen=True, kw_only=True):
    checklist: Annotated[
        list[ChecklistItem], msgspec.Meta(description="Supplies to have, vital ones first.", max_length=60)
    ]
    recommended_bundles: Annotated[
        list[RecommendedBundle],
        msgspec.Meta(description="Those of the given product bundles that fit.", max_length=100),
    ]


class Section(msgspec.Struct, frozen=True, kw_only=True):
    heading: str
    body: str
    actions: list[str]


class MissionResponse(msgspec.Struct, frozen=True, kw_only=True):
    title: str
    summary: str
    sections: list[Section]
    checklist: list[ChecklistItem]
    recommended_bundles: list[RecommendedBundle]


async def generate_mission(request: MissionRequest, context: Context) -> MissionResponse:
    outline = await context.fill(
        "outline", system=read_prompt("mission_generation.outline"), user=_encode(request), into=Outline
    )
    headings = _choose_headings(outline)
    sections = await _write_sections(request, headings, context)
    recommendation = await _recommend(request, sections, context)
    return MissionResponse(
        title=outline.title,
        summary=outline.summary,
        sections=sections,
        checklist=recommendation.checklist,
        recommended_bundles=keep_given_bundles(recommendation.recommended_bundles, request.product_bundles),
    )


def _choose_headings(outline: Outline) -> list[str]:
    distinct = {heading.strip().casefold(): heading.strip() for heading in reversed(outline.headings)}
    return list(reversed(distinct.values()))[:MAX_SECTIONS]


async def _write_sections(request: MissionRequest, headings: list[str], context: Context) -> list[Section]:
    async def write(number: int, heading: str) -> Section:
        text = await context.fill(
            f"section/{number}",
            system=read_prompt("mission_generation.section"),
            user=_encode({"heading": heading, "all_headings": headings, "household": request}),
            into=SectionText,
        )
        return Section(heading=heading, body=text.body, actions=text.actions)

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(write(number, heading)) for number, heading in enumerate(headings, 1)]
    except BaseExceptionGroup as failures:
        # The first failure cancelled the other sections; it is the job's reason, not the group around it.
        raise failures.exceptions[0] from None
    return [task.result() for task in tasks]


async def _recommend(request: MissionRequest, sections: list[Section], context: Context) -> Recommendation:
    planned = [{"heading": section.heading, "actions": section.actions} for section in sections]
    return await context.fill(
        "recommendation",
        system=read_prompt("mission_generation.recommendation"),
        user=_encode({"household": request, "planned": planned}),
        into=Recommendation,
    )


def keep_given_bundles(
    recommended: list[RecommendedBundle], given: list[ProductBundle]
) -> list[RecommendedBundle]:
    """Drop what was not given, and repeats; the names come back in the caller's spelling."""
    names = {bundle.name.strip().casefold(): bundle.name for bundle in given}
    kept: dict[str, RecommendedBundle] = {}
    for bundle in recommended:
        key = bundle.name.strip().casefold()
        if key in names and key not in kept:
            kept[key] = RecommendedBundle(name=names[key], reason=bundle.reason)
    return list(kept.values())


def _encode(value: Any) -> str:
    return msgspec.json.encode(value).decode()


WORKFLOW = Workflow(
    name="mission_generation",
    description="Writes a preparedness report for a household: sections, a checklist, product bundles.",
    version="1.0.0",
    input_type=MissionRequest,
    output_type=MissionResponse,
    run=generate_mission,
    calls=lambda _request: USUAL_SECTIONS + 2,
)
