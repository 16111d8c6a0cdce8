"""driving_directions: from the origin over what the notes say to the destination."""

from typing import Any

import msgspec
import pytest

from llm_service.workflows.driving_directions import WORKFLOW, DirectionsRequest

NOTES = (
    "Take the D1 towards Jihlava for 90 km, then leave at exit 112 onto Route 38. There is ice near Jihlava. "
    "If the D1 is closed, use the I/43 via Svitavy."
)


async def test_steps_alternatives_and_cautions_come_from_the_notes(context: Any) -> None:
    request = DirectionsRequest(origin="Brno", destination="Prague", avoid=["toll roads"], notes=NOTES)
    answer = await WORKFLOW.run(request, context)
    assert [(step.instruction, step.road, step.distance_km) for step in answer.steps] == [
        ("Start at Brno.", None, None),
        ("Take the D1 towards Jihlava for 90 km.", "D1", 90.0),
        ("Leave at exit 112 onto Route 38.", "Route 38", None),
        ("Arrive at Prague.", None, None),
    ]
    assert [(way.road, way.reason) for way in answer.alternatives] == [("I/43", "If the D1 is closed.")]
    assert answer.cautions == ["Avoid toll roads.", "There is ice near Jihlava."]


async def test_without_notes_there_is_one_step(context: Any) -> None:
    answer = await WORKFLOW.run(DirectionsRequest(origin="Brno", destination="Prague"), context)
    assert [step.instruction for step in answer.steps] == ["Drive from Brno to Prague."]
    assert not answer.alternatives


@pytest.mark.parametrize("broken", [{"origin": "Brno"}, {"origin": "", "destination": "Prague"}])
def test_both_ends_are_needed(broken: dict[str, str]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(broken, DirectionsRequest)
