"""strict_schema: what strict structured output accepts, from any Struct that fits it."""

from datetime import date
from typing import Annotated, Any, Literal

import msgspec
import pytest

from llm_service.llm.schema import strict_schema
from llm_service.workflows.driving_directions import DirectionsResponse
from llm_service.workflows.emergency_contacts import ContactsResponse
from llm_service.workflows.mission_generation import Outline, Recommendation, SectionText

FORBIDDEN = {
    "default",
    "title",
    "examples",
    "minLength",
    "maxLength",
    "discriminator",
    "uniqueItems",
    "prefixItems",
}


class Leaf(msgspec.Struct):
    size: Annotated[int, msgspec.Meta(ge=0, le=9)] = 3


class Branch(msgspec.Struct):
    """A thing with parts of its own kind."""

    name: Annotated[str, msgspec.Meta(description="Its name.", max_length=20, examples=["oak"])]
    leaf: Annotated[Leaf, msgspec.Meta(description="Its leaf.")]
    kind: Literal["a", "b"] = "a"
    mixed: Literal[1, "x"] = 1
    parts: Annotated[list["Branch"], msgspec.Meta(max_length=3)] = []
    seen: set[int] = set()
    day: date | None = None


class Cat(msgspec.Struct, tag=True):
    lives: int


class Dog(msgspec.Struct, tag=True):
    tricks: list[str]


class Owner(msgspec.Struct):
    pet: Cat | Dog | None


class OpenMap(msgspec.Struct):
    counts: dict[str, int]


class AnyValue(msgspec.Struct):
    value: Any


class FixedTuple(msgspec.Struct):
    pair: tuple[int, str]


class ArrayLike(msgspec.Struct, array_like=True):
    value: int


def walk(part: Any) -> list[dict[str, Any]]:
    """Every subschema; the names of properties and definitions are no keywords."""
    if not isinstance(part, dict):
        return []
    nested = [*part.get("properties", {}).values(), *part.get("$defs", {}).values(), *part.get("anyOf", [])]
    nested.append(part.get("items"))
    return [part, *(found for each in nested for found in walk(each))]


@pytest.mark.parametrize(
    "struct_type", [Branch, Owner, ContactsResponse, DirectionsResponse, Outline, SectionText, Recommendation]
)
def test_every_object_is_closed_and_requires_everything(struct_type: type[msgspec.Struct]) -> None:
    schema = strict_schema(struct_type)
    assert schema["type"] == "object"
    for part in walk(schema):
        assert not FORBIDDEN & part.keys()
        assert part.keys() & {"type", "anyOf", "$ref"}, part
        if "$ref" in part:
            assert part.keys() == {"$ref"}
        if part.get("type") == "object":
            assert part["required"] == list(part["properties"])
            assert part["additionalProperties"] is False


def test_definitions_keep_only_what_is_referred_to() -> None:
    assert set(strict_schema(Branch)["$defs"]) == {"Branch", "Leaf"}
    assert "$defs" not in strict_schema(Outline)


def test_what_has_no_keyword_is_said_in_words() -> None:
    properties = strict_schema(Branch)["properties"]
    assert properties["name"]["description"] == "Its name. At most 20 characters."
    assert properties["seen"]["description"] == "No item twice."
    assert properties["leaf"] == {"description": "Its leaf.", "anyOf": [{"$ref": "#/$defs/Leaf"}]}
    assert properties["parts"]["maxItems"] == 3


def test_enums_say_their_type() -> None:
    properties = strict_schema(Branch)["properties"]
    assert properties["kind"] == {"enum": ["a", "b"], "type": "string"}
    assert set(properties["mixed"]["type"]) == {"integer", "string"}


def test_a_type_has_one_schema() -> None:
    assert strict_schema(Branch) is strict_schema(Branch)


@pytest.mark.parametrize(
    ("struct_type", "place"),
    [
        (OpenMap, "OpenMap.counts"),
        (AnyValue, "AnyValue.value"),
        (FixedTuple, "FixedTuple.pair"),
        (ArrayLike, "ArrayLike"),
    ],
)
def test_what_strict_mode_cannot_say_is_refused_by_name(
    struct_type: type[msgspec.Struct], place: str
) -> None:
    with pytest.raises(TypeError, match=place):
        strict_schema(struct_type)
