"""What is said of an input that does not fit, whatever it holds."""

from typing import Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_service.errors import InvalidInputData
from llm_service.jobs.submit import LONGEST, decode_input
from llm_service.workflows.base import Context, Workflow


class Choice(msgspec.Struct):
    way: Literal["walk", "drive"]
    stops: list[Literal["a", "b"]] = []


async def run(choice: Choice, _: Context) -> Choice:
    return choice


WORKFLOW = Workflow(
    name="choice",
    description="For a test.",
    version="1",
    input_type=Choice,
    output_type=Choice,
    run=run,
    calls=lambda _: 1,
)


def refused(**fields: object) -> InvalidInputData:
    with pytest.raises(InvalidInputData) as caught:
        decode_input(msgspec.json.encode(fields), WORKFLOW)
    return caught.value


@pytest.mark.parametrize(
    "value", ["fly", " - at `$[\u00b2].x", " - at `$.b[7]`", "`", "$", "[", "].[\u0662]"]
)
def test_a_value_that_looks_like_a_place_is_none(value: str) -> None:
    assert refused(way=value).context["errors"][0]["loc"] == ["body", "input_data", "way"]
    assert refused(way="walk", stops=["a", value]).context["errors"][0]["loc"] == [
        "body",
        "input_data",
        "stops",
        1,
    ]


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=6))
def test_any_value_is_refused_at_its_place(value: str) -> None:
    assert refused(way=value).context["errors"][0]["loc"] == ["body", "input_data", "way"]


def test_a_value_of_any_length_is_repeated_by_its_beginning() -> None:
    error = refused(way="x" * 500_000)
    assert len(error.message) < LONGEST + 100
    assert len(str(error.context)) < LONGEST + 200
