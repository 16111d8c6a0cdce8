"""How bodies are read: any bytes end as a value or as a refusal that says what is wrong, and quickly."""

import json
import time
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llm_service.api.body import decode_body
from llm_service.api.workflow import WorkflowSubmitRequest
from llm_service.errors import MalformedBody, ValidationError

TYPES: tuple[Any, ...] = (WorkflowSubmitRequest, msgspec.Raw, dict[str, Any], Any)
TEXT = st.text() | st.lists(st.sampled_from(["\x00", "\ud800", "\udfff", "a"]), max_size=3).map("".join)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)
PIECES = st.sampled_from(
    [
        b"{",
        b"}",
        b"[",
        b"]",
        b'"',
        b":",
        b",",
        b"\\",
        b"\\u0000",
        b"\\ud800",
        b"\\udc00",
        b"\\u00",
        b"\x00",
        b"\xff",
        b"\xef\xbb\xbf",
        b"1",
        b"-",
        b"e9",
        b".",
        b"null",
        b"NaN",
        b"Infinity",
        b" ",
        b"\n",
        b'"a"',
        b'"workflow_name"',
        b'"input_data"',
        b"[" * 70,
    ],
)


def outcome(raw: bytes, into: Any) -> str:
    try:
        decode_body(raw, into)
    except (MalformedBody, ValidationError) as error:
        msgspec.json.encode(error.context)  # it can be sent
        return error.code
    return "value"


@given(st.binary(max_size=200))
@example(b"")
@example(b"\xef\xbb\xbf{}")
@example('{"a": 1}'.encode("utf-16"))
@example(b"[" * 100_000)
@example(b'"' + b"\\" * 1001)
@example(b"9" * 5000)
@example(b'{"\\u0000": {"\\ud800": 1}}')
@example(b"1e400")
def test_s36_any_bytes_end_defined(raw: bytes) -> None:
    for into in TYPES:
        assert outcome(raw, into) in {"value", "MalformedBody", "ValidationError"}


@given(st.lists(PIECES, max_size=30).map(b"".join))
def test_bytes_that_look_like_json_end_defined(raw: bytes) -> None:
    for into in TYPES:
        assert outcome(raw, into) in {"value", "MalformedBody", "ValidationError"}


@given(JSON)
def test_any_json_is_a_value_or_named(value: Any) -> None:
    """Also against Python's own reader: what is refused holds NUL, half a pair, or a number out of range."""
    raw = json.dumps(value).encode()
    found = outcome(raw, Any)
    if found == "value":
        assert b"\\u0000" not in raw
        assert decode_body(raw, Any) == json.loads(raw)
    elif found == "MalformedBody":
        assert b"NaN" in raw or b"Infinity" in raw, raw


# --- depth ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("opened", "closed"), [("[", "]"), ('{"a":', "}")])
def test_s32_64_levels_are_read_and_65_are_not(opened: str, closed: str) -> None:
    assert outcome((opened * 64 + "1" + closed * 64).encode(), Any) == "value"
    assert outcome((opened * 65 + "1" + closed * 65).encode(), Any) == "MalformedBody"
    assert outcome(("[" + opened * 64 + "1" + closed * 64 + "]").encode(), msgspec.Raw) == "MalformedBody"


@pytest.mark.parametrize(
    "text", ["[" * 500, '\\"' + "[" * 500, "\\\\", '{"[' * 100, "]" * 500, "\n[\u2028{" * 100]
)
def test_brackets_within_strings_are_no_levels(text: str) -> None:
    raw = json.dumps([text, {text: [text]}]).encode()
    assert outcome(raw, Any) == "value"
    deep = json.dumps([text]).encode()
    for _ in range(63):
        deep = b"[" + deep + b"]"
    assert outcome(deep, Any) == "value"
    assert outcome(b"[" + deep + b"]", Any) == "MalformedBody"


def test_many_lists_side_by_side_are_not_deep() -> None:
    assert outcome(b"[" + b"[]," * 10_000 + b"{}]", Any) == "value"


# --- what PostgreSQL cannot hold --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "bad", ["\\u0000", "a\\u0000b", "\\ud800", "\\udfff x", "\\ud83d\\ud83d", "\\udE00\\uD83d"]
)
@pytest.mark.parametrize(
    ("body", "loc"),
    [
        ('{"username": "%s"}', ["body", "username"]),
        ('{"input_data": {"a": [1, {"b": "%s"}]}}', ["body", "input_data", "a", 1, "b"]),
        ('[["%s"]]', ["body", 0, 0]),
        ('"%s"', ["body"]),
        ('{"a": "%s", "a": "later"}', ["body", "a"]),
        ('{"a": {"b": "%s"}, "a": 1}', ["body", "a", "b"]),
        ('{"n": ' + "9" * 5_000 + ', "a": "%s"}', ["body", "a"]),
        ('{"n": -1e999, "a": "%s"}', ["body", "a"]),
    ],
)
def test_s34_the_place_of_a_nul_or_half_a_pair_is_named(body: str, loc: list[Any], bad: str) -> None:
    for into in (Any, msgspec.Raw, dict[str, Any]):
        with pytest.raises(ValidationError) as caught:
            decode_body((body % bad).encode(), into)
        assert caught.value.context["errors"][0]["loc"] == loc


@pytest.mark.parametrize(("key", "shown"), [("k\\u0000", "k\\u0000"), ("\\udc00", "\\udc00")])
def test_a_key_that_cannot_be_held_is_named_in_ascii(key: str, shown: str) -> None:
    with pytest.raises(ValidationError) as caught:
        decode_body(f'{{"a": {{"{key}": 1}}}}'.encode(), Any)
    assert caught.value.context["errors"][0]["loc"] == ["body", "a", shown]


@pytest.mark.parametrize("text", ["\\\\u0000", "\\ud83d\\ude00", "\\\\\\\\ud800", "\\u0001"])
def test_what_only_looks_like_it_is_read(text: str) -> None:
    assert outcome(f'{{"a": "{text}"}}'.encode(), Any) == "value"


# --- bounds -----------------------------------------------------------------------------------------------


def seconds(raw: bytes, into: Any = Any) -> float:
    started = time.perf_counter()
    outcome(raw, into)
    return time.perf_counter() - started


def test_s37_200_000_keys_are_read_quickly() -> None:
    raw = b"{" + b",".join(b'"%x":0' % number for number in range(110_000)) + b"}"
    many = b"{" + b",".join([b'"":1'] * 200_000) + b"}"
    for body in (raw, many, many.replace(b'""', b'"\\u0000"', 1)):
        assert len(body) < 1024 * 1024 + 100
        assert seconds(body) < 2
        assert seconds(body, WorkflowSubmitRequest) < 2


@pytest.mark.parametrize(
    "raw",
    [
        b"[" * 65 + b'"' + b'\\"' * 500_000,
        b"[" * 65 + b'"' * 1_000_000,
        b"[" * 65 + b'"' + b"\\" * 1_000_001,
        b'{"a":' * 200_000,
        b'"' + b"\\ud800" * 170_000 + b'"',
        b'["\\u0000"' + b',"x"' * 250_000 + b"]",
    ],
    ids=["escaped quotes", "quotes", "backslashes", "levels", "half pairs", "late strings"],
)
def test_s45_a_hostile_mebibyte_is_refused_quickly(raw: bytes) -> None:
    assert seconds(raw) < 2


# --- numbers and repeated keys ----------------------------------------------------------------------------


@pytest.mark.parametrize("number", [b"9" * 5000, b"-" + b"9" * 5000, b"1e400", b"-1e400", b"9" * 400 + b".5"])
def test_s36_a_number_out_of_range_is_422(number: bytes) -> None:
    assert outcome(b'{"a": ' + number + b"}", dict[str, Any]) == "ValidationError"
    submission = b'{"workflow_name": "completion", "input_data": {}, "priority": ' + number + b"}"
    assert outcome(submission, WorkflowSubmitRequest) == "ValidationError"


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"-Infinity", b"01", b"1.", b".5", b"+1", b"0x1"])
def test_s36_what_is_no_number_is_400(number: bytes) -> None:
    assert outcome(b"[" + number + b"]", Any) == "MalformedBody"


def test_s36_of_a_repeated_key_the_last_one_counts() -> None:
    raw = b'{"workflow_name": "a", "workflow_name": "b", "input_data": {}, "input_data": {"x": 1}}'
    request = decode_body(raw, WorkflowSubmitRequest)
    assert request.workflow_name == "b"
    assert bytes(request.input_data) == b'{"x": 1}'


def test_a_wrong_repeated_key_is_refused_even_when_the_last_is_right() -> None:
    raw = b'{"workflow_name": 1, "workflow_name": "b", "input_data": {}}'
    assert outcome(raw, WorkflowSubmitRequest) == "ValidationError"
