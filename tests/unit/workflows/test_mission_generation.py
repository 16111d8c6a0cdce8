"""mission_generation: an outline, its sections at the same time, then a checklist and bundles that were given."""

import asyncio
from typing import Any, TypeVar

import msgspec
import pytest

from llm_service.errors import OutputValidationError
from llm_service.workflows.mission_generation import (
    MAX_SECTIONS,
    WORKFLOW,
    MissionRequest,
    Outline,
    ProductBundle,
    RecommendedBundle,
    SectionText,
    keep_given_bundles,
)

T = TypeVar("T", bound=msgspec.Struct)

REQUEST = MissionRequest(
    scenarios=["flood", "power outage"],
    location="Brno",
    family_size=4,
    duration_days=7,
    mobility="One car, grandmother uses a wheelchair",
    family_details=["Grandmother (78) needs insulin", "A dog"],
    product_bundles=[
        ProductBundle(
            name="Water kit", description="Clean water in a flood", items=["water filter", "3 x soap"]
        ),
        ProductBundle(name="Garden set", description="For the summer"),
    ],
)


class ScriptedContext:
    """Answers the outline as told; every section waits until all have begun, or fails."""

    def __init__(self, headings: list[str], failing: str | None = None) -> None:
        self.headings = headings
        self.failing = failing
        self.begun: set[str] = set()
        self.all_begun = asyncio.Event()

    async def text(self, step: str, *, system: str, user: str) -> str:
        raise NotImplementedError

    async def fill(self, step: str, *, system: str, user: str, into: type[T]) -> T:
        values: dict[str, object] = {"checklist": [], "recommended_bundles": [], "body": step, "actions": []}
        if into is Outline:
            values = {"title": "T", "summary": "S", "headings": self.headings}
        if into is SectionText:
            self.begun.add(step)
            if len(self.begun) == min(len(self.headings), MAX_SECTIONS):
                self.all_begun.set()
            await self.all_begun.wait()
            if step == self.failing:
                raise OutputValidationError("The answer broke the schema.")
        return msgspec.convert(values, into)


async def test_the_report_is_made_from_the_input(context: Any) -> None:
    report = await WORKFLOW.run(REQUEST, context)
    assert report.title == "Flood, power outage: Brno"
    headings = [section.heading for section in report.sections]
    assert headings[:3] == ["Flood", "Power outage", "Supplies for 7 days"]
    assert set(context.requests) == {"outline", "recommendation"} | {
        f"section/{number}" for number in range(1, len(headings) + 1)
    }
    quantities = {each.item: each.quantity for each in report.checklist}
    assert quantities["Drinking water"] == "84 litres"
    assert quantities["Soap"] == "3"
    assert {"Insulin", "Wheelchair", "Water filter"} <= quantities.keys()
    assert [bundle.name for bundle in report.recommended_bundles] == ["Water kit"]


async def test_sections_are_written_at_the_same_time() -> None:
    report = await asyncio.wait_for(WORKFLOW.run(REQUEST, ScriptedContext(["A", "B", "C"])), 2)
    assert [(section.heading, section.body) for section in report.sections] == [
        ("A", "section/1"),
        ("B", "section/2"),
        ("C", "section/3"),
    ]


async def test_headings_are_distinct_and_bounded() -> None:
    context = ScriptedContext(["Flood", " flood "])
    context.all_begun.set()
    report = await WORKFLOW.run(REQUEST, context)
    assert [section.heading for section in report.sections] == ["Flood"]


async def test_a_failing_section_fails_the_mission_with_its_own_error() -> None:
    with pytest.raises(OutputValidationError):
        await WORKFLOW.run(REQUEST, ScriptedContext(["A", "B"], failing="section/2"))


def test_only_given_bundles_are_recommended_once_and_in_the_callers_spelling() -> None:
    answered = [RecommendedBundle(name=name, reason="r") for name in ("water KIT ", "Gold set", "Water kit")]
    kept = keep_given_bundles(answered, REQUEST.product_bundles)
    assert [bundle.name for bundle in kept] == ["Water kit"]


@pytest.mark.parametrize("details", ["Two adults and a baby.", ["a baby", {"name": "Eva", "age": 4}], None])
def test_family_details_are_text_or_a_list(details: object) -> None:
    body = {"scenarios": ["fire"], "location": "Brno", "family_size": 3, "duration_days": 3}
    request = msgspec.convert(body | {"family_details": details}, MissionRequest)
    assert request.family_details == details


@pytest.mark.parametrize(
    "change", [{"family_size": 0}, {"duration_days": 0}, {"scenarios": []}, {"location": ""}]
)
def test_bounds_are_checked(change: dict[str, object]) -> None:
    body = {"scenarios": ["fire"], "location": "Brno", "family_size": 3, "duration_days": 3}
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(body | change, MissionRequest)
