"""The offline model: always valid, always the same, made from what was sent, quick on anything."""

import re
import time
from datetime import date, datetime
from decimal import Decimal
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llm_service.errors import ModelRejected
from llm_service.llm.model import Message, ModelRequest
from llm_service.llm.offline import OfflineModel, lists, people, readers, route, supplies, text
from llm_service.llm.schema import strict_schema
from llm_service.workflows.driving_directions import DirectionsResponse
from llm_service.workflows.emergency_contacts import ContactsResponse
from llm_service.workflows.mission_generation import Outline, Recommendation, SectionText

# --- asking it ----------------------------------------------------------------------------------------------


async def ask(user: Any, schema: dict[str, Any] | None = None) -> str:
    content = user if isinstance(user, str) else msgspec.json.encode(user).decode()
    messages = (Message("system", "Do as told."), Message("user", content))
    return (await OfflineModel().answer(ModelRequest(messages=messages, schema=schema))).text


async def fill(user: Any, into: type[msgspec.Struct]) -> Any:
    return msgspec.json.decode(await ask(user, strict_schema(into)), type=into)


# --- a team's own schemas -----------------------------------------------------------------------------------


class Ticket(msgspec.Struct):
    subject: Annotated[str, msgspec.Meta(max_length=40)]
    priority: Literal["low", "high", "unknown"]
    email: str | None
    order_number: int | None
    refund_requested: bool
    due: date | None
    questions: list[str]


class Node(msgspec.Struct):
    label: str
    left: "Node | None"
    right: "Node | None"
    children: list["Node"]


class Number(msgspec.Struct, tag=True):
    value: float


class Sum(msgspec.Struct, tag=True):
    first: "Number | Sum"
    second: "Number | Sum"


class Odd(msgspec.Struct):
    short: Annotated[str, msgspec.Meta(max_length=3)]
    long: Annotated[str, msgspec.Meta(min_length=50)]
    score: Annotated[float, msgspec.Meta(gt=2, lt=3)]
    dozens: Annotated[int, msgspec.Meta(ge=5, multiple_of=12)]
    below: Annotated[int, msgspec.Meta(lt=-4)]
    pair: Annotated[list[str], msgspec.Meta(min_length=2, max_length=2)]
    id: UUID
    when: Annotated[datetime, msgspec.Meta(tz=True)]
    price: Decimal
    raw: bytes
    mixed: Literal[1, "x"]
    either: int | str | None
    nothing: None
    formula: Number | Sum
    tree: Node


TYPES = [Ticket, Node, Sum, Odd, ContactsResponse, DirectionsResponse, Outline, SectionText, Recommendation]

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**6), 10**6)
    | st.floats(allow_nan=False, width=32)
    | st.text(max_size=40),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
telling_keys = st.sampled_from(
    [
        "notes",
        "scenarios",
        "location",
        "family_size",
        "duration_days",
        "product_bundles",
        "heading",
        "origin",
        "destination",
        "avoid",
        "id",
        "when",
        "price",
        "raw",
        "score",
        "label",
        "children",
        "left",
        "title",
        "headings",
        "contacts",
        "steps",
        "body",
        "actions",
        "items",
        "name",
        "phone",
    ]
)
user_messages = st.one_of(
    st.text(max_size=200),
    st.dictionaries(telling_keys, json_values, max_size=8),
    st.dictionaries(st.text(max_size=12), json_values, max_size=8),
)


@settings(max_examples=15, suppress_health_check=[HealthCheck.too_slow])
@given(user=user_messages, into=st.sampled_from(TYPES))
async def test_an_answer_is_valid_and_the_same_again(user: Any, into: type[msgspec.Struct]) -> None:
    schema = strict_schema(into)
    answer = await ask(user, schema)
    msgspec.json.decode(answer, type=into)
    assert answer == await ask(user, schema)


@settings(max_examples=10)
@given(user=user_messages)
async def test_plain_text_is_the_same_again_and_never_empty(user: Any) -> None:
    answer = await ask(user)
    assert answer.strip()
    assert answer == await ask(user)


# --- what it makes of real input ----------------------------------------------------------------------------


async def test_a_teams_own_schema_is_filled_from_free_text() -> None:
    ticket = await fill(
        "Order number 4711 arrived broken. Refund requested by eva@example.org until 2026-12-01, priority high. "
        "Can you send a new one?",
        Ticket,
    )
    assert ticket.priority == "high"
    assert ticket.email == "eva@example.org"
    assert ticket.order_number == 4711
    assert ticket.refund_requested is True
    assert ticket.due == date(2026, 12, 1)
    assert ticket.questions == ["Can you send a new one?"]
    assert 0 < len(ticket.subject) <= 40


async def test_what_is_not_there_is_null_or_empty() -> None:
    ticket = await fill("Hello there, all fine.", Ticket)
    assert (ticket.email, ticket.order_number, ticket.due) == (None, None, None)
    assert ticket.priority == "unknown"
    assert ticket.refund_requested is False
    assert ticket.questions == []


async def test_values_given_by_name_are_taken_over() -> None:
    ticket = await fill({"subject": "Broken cup", "order_number": 12, "refund_requested": True}, Ticket)
    assert (ticket.subject, ticket.order_number, ticket.refund_requested) == ("Broken cup", 12, True)


@pytest.mark.parametrize(
    ("notes", "expected"),
    [
        ("Fire station: 150.", [("Fire station", "fire station", "150")]),
        ("Maria (neighbour) has a car, 555-1234", [("Maria", "neighbour", "555-1234")]),
        ("Our son Tom is at school. His number is 0912 345 678.", [("Tom", "son", "0912 345 678")]),
        ("Uncle Bob and aunt Eve live in New York.", [("Bob", "uncle", None), ("Eve", "aunt", None)]),
        ("Plumber Joe Smith 07700 900123, electrician Sue Wood 07700 900456.",
         [("Joe Smith", "plumber", "07700 900123"), ("Sue Wood", "electrician", "07700 900456")]),
        ("Maria Lopez leads the shelter at Hill Street, phone 0113 496 0000.",
         [("Maria Lopez", None, "0113 496 0000")]),
        ("Emergency Plan for the house. Call Maria Lopez.", [("Maria Lopez", None, None)]),
        ("We pay 1,500 EUR since 2024-05-01 for 120 km to Main Street.", []),
    ],
)  # fmt: skip
def test_people_are_read_with_role_and_phone(notes: str, expected: list[tuple[str, str, str]]) -> None:
    assert [(each.name, each.role, each.phone) for each in people.find_people(notes)] == expected


async def test_free_text_is_extracted_not_echoed() -> None:
    prompt = (
        "The dam holds 300 people's water. It rained. Call Jana Dvorak on +420 601 222 333. "
        + "So it goes. " * 40
    )
    answer = await ask(prompt)
    assert "Jana Dvorak" in answer
    assert "+420 601 222 333" in answer
    assert len(answer) < len(prompt) / 2


async def test_a_bare_question_gets_no_invented_answer() -> None:
    answer = await ask("What is the capital of France?")
    assert "capital, France" in answer
    assert "Paris" not in answer


async def test_the_facts_survive_a_round_of_repair() -> None:
    messages = (
        Message("user", '{"location": "Brno", "notes": "We meet at the old mill."}'),
        Message("assistant", "{}"),
        Message("user", "That broke the schema."),
    )
    request = ModelRequest(messages=messages, schema=strict_schema(ContactsResponse))
    answer = msgspec.json.decode((await OfflineModel().answer(request)).text, type=ContactsResponse)
    assert [place.name for place in answer.meeting_places] == ["Old mill"]


async def test_tokens_are_estimated() -> None:
    request = ModelRequest(messages=(Message("user", "one two three"),))
    answer = await OfflineModel().answer(request)
    assert answer.input_tokens == 4
    assert answer.output_tokens
    assert answer.model == "offline"


async def test_lone_surrogates_do_not_reach_the_answer() -> None:
    (await ask("\ud800 word \udfff 4711 words.")).encode()


# --- hostile input ------------------------------------------------------------------------------------------

SIZE = 25_000
"""Characters: more than the model reads, enough to tell a quadratic pattern from a linear one."""

HOSTILE = {
    "one letter": "a" * SIZE,
    "digits": "1" * SIZE,
    "digits and spaces": "1 " * SIZE,
    "almost a phone": "+1 (2" * SIZE,
    "capitals": "Aa Bb. " * SIZE,
    "spaces": " " * SIZE + "x",
    "ifs": "if " * SIZE,
    "almost an address": "a.b@" * SIZE,
    "brackets": "([{" * SIZE,
    "roles": "sister " * SIZE,
    "roads": "D1 I/4 Main Street " * SIZE,
    "meetings": "meet at " * SIZE,
    "needs": "needs a " * SIZE,
    "marks": "?" * SIZE,
    "combining": "e\u0301\u202e\ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16") * SIZE,
    "control": "\x00\x1b[31m\u2028" * SIZE,
    "links": "http://" * SIZE,
}
HOSTILE = {name: hostile[:SIZE] for name, hostile in HOSTILE.items()}


@pytest.mark.parametrize("name", HOSTILE)
async def test_hostile_text_is_answered_quickly(name: str) -> None:
    began = time.perf_counter()
    await ask(HOSTILE[name])
    await fill(HOSTILE[name], ContactsResponse)
    await fill({"origin": "Brno", "destination": "Prague", "notes": HOSTILE[name]}, DirectionsResponse)
    assert time.perf_counter() - began < 20, "it runs away"


PATTERNS = [
    (f"{module.__name__.rpartition('.')[2]}.{name}", pattern)
    for module in (lists, people, readers, route, supplies, text)
    for name, value in sorted(vars(module).items())
    for pattern in (value.values() if isinstance(value, dict) else [value])
    if isinstance(pattern, re.Pattern)
]


@pytest.mark.parametrize(("name", "pattern"), PATTERNS, ids=[name for name, _ in PATTERNS])
def test_no_pattern_runs_away(name: str, pattern: re.Pattern[str]) -> None:
    """Four times the text may take some eight times as long: a pattern that runs away takes sixteen and more."""

    def quickest(text: str) -> float:
        def once() -> float:
            began = time.process_time()
            pattern.search(text + "~")
            return time.process_time() - began

        return min(once() for _ in range(3))

    for kind, hostile in HOSTILE.items():
        part, whole = quickest(hostile[: len(hostile) // 4]), quickest(hostile)
        assert whole < 8 * max(part, 0.005), (
            f"{name} on {kind}: {part:.4f} s, then {whole:.4f} s for 4 times as much"
        )


async def test_input_nested_beyond_measure_is_read_as_text() -> None:
    deep = '{"a":' * 50_000 + "1" + "}" * 50_000
    assert await ask(deep)
    msgspec.json.decode(await ask(deep, strict_schema(Ticket)), type=Ticket)


async def test_many_values_are_bounded() -> None:
    many = {f"key{number}": ["a b c d e", {"name": "x"}] for number in range(20_000)}
    began = time.perf_counter()
    await ask(many, strict_schema(Recommendation))
    assert time.perf_counter() - began < 20, "it runs away"


def nested_schema(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(levels):
        schema = {
            "type": "object",
            "properties": {"a": schema},
            "required": ["a"],
            "additionalProperties": False,
        }
    return schema


async def test_a_deep_schema_is_filled() -> None:
    found = msgspec.json.decode(await ask("Some text.", nested_schema(100)))
    for _ in range(100):
        found = found["a"]
    assert isinstance(found, str)


@pytest.mark.parametrize(
    "schema",
    [
        nested_schema(500),
        {"type": "object", "properties": {"a": {"$ref": "#/$defs/A"}},
         "$defs": {"A": {"type": "object", "properties": {"a": {"$ref": "#/$defs/A"}}}}},
        {"type": "object", "properties": {"a": {"$ref": "#/$defs/Nowhere"}}},
        {"type": "object", "properties": {"a": {"$ref": "#/$defs/A0"}},
         "$defs": {f"A{n}": {"type": "object", "properties": {"l": {"$ref": f"#/$defs/A{n + 1}"},
                   "r": {"$ref": f"#/$defs/A{n + 1}"}}} for n in range(40)} | {"A40": {"type": "string"}}},
        {"type": "object", "properties": {"a": {"type": "string", "pattern": "^[0-9]{30}$"}}},
    ],
    ids=["too deep", "without an end", "leads nowhere", "too large", "a pattern nothing matches"],
)  # fmt: skip
async def test_a_schema_that_cannot_be_filled_is_rejected(schema: dict[str, Any]) -> None:
    with pytest.raises(ModelRejected):
        await ask("Some text.", schema)
