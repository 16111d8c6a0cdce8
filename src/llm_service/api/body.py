"""How a JSON body is read: bounded, strict, and with errors that name the place.

What the decoder would accept and PostgreSQL would not (NUL), or would refuse without saying where (half a
surrogate pair), is looked for only when the body holds an escape that could be it.
"""

import json
import re
from collections.abc import Iterator
from typing import Any, Generic, TypeVar

import msgspec
from litestar.dto import AbstractDTO
from litestar.openapi.spec import Reference, Schema
from litestar.typing import FieldDefinition

from llm_service.errors import MalformedBody, UnsupportedMediaType, ValidationError
from llm_service.jobs.submit import locate

T = TypeVar("T")

MAX_BODY = 1024 * 1024
MAX_DEPTH = 64
_SUSPECT = re.compile(rb"\\u(?:0000|[dD][89a-fA-F])")
# An unterminated string counts too, to the end: looked for again at each of its quotes, it would take minutes.
_STRINGS = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)', re.DOTALL)
_SURROGATE = re.compile("[\ud800-\udfff]")


class StrictJSON(AbstractDTO[T], Generic[T]):
    """Litestar's hook between the bytes of a body and the handler's `data`."""

    def decode_bytes(self, value: bytes) -> Any:
        refuse_other_media(self.asgi_connection.headers.get("content-type"))
        return decode_body(value, self.model_type)

    @classmethod
    def create_for_field_definition(cls, *_: Any, **__: Any) -> None: ...

    @classmethod
    def create_openapi_schema(
        cls, field_definition: FieldDefinition, handler_id: str, schema_creator: Any
    ) -> Reference | Schema:
        schema: Reference | Schema = schema_creator.for_field_definition(field_definition)
        return schema

    @classmethod
    def generate_field_definitions(cls, model_type: type[Any]) -> Iterator[Any]:  # type: ignore[override]
        yield from ()

    @classmethod
    def detect_nested_field(cls, field_definition: FieldDefinition) -> bool:
        return False


def refuse_other_media(content_type: str | None) -> None:
    """A body without a type is taken for JSON, as the clients of before send it."""
    media = (content_type or "application/json").split(";")[0].strip().lower()
    if media != "application/json" and not (media.startswith("application/") and media.endswith("+json")):
        raise UnsupportedMediaType("Content-Type must be application/json.", content_type=media)


def decode_body(raw: bytes, into: type[T]) -> T:
    """Decode a request body. Raises `MalformedBody` (400) or `ValidationError` (422)."""
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        raise MalformedBody(f"The body is not UTF-8 (byte {error.start}).") from None
    refuse_deep(raw)
    if _SUSPECT.search(raw):
        refuse_unstorable(raw)
    try:
        return msgspec.json.decode(raw, type=into)
    except msgspec.ValidationError as error:
        message, place = locate(error)
        raise ValidationError(message, ["body", *place]) from None
    except msgspec.DecodeError as error:
        reason = "it is empty" if not raw.strip() else str(error)
        raise MalformedBody(f"The body is not JSON: {reason}.") from None


class _Members(list[tuple[str, Any]]):
    """An object's members as they were written: a repeated key hides none."""


def refuse_deep(raw: bytes) -> None:
    if raw.count(b"{") + raw.count(b"[") <= MAX_DEPTH:
        return
    depth = 0
    for byte in re.findall(rb"[\[\]{}]", _STRINGS.sub(b"", raw)):
        if byte in b"[{":
            depth += 1
            if depth > MAX_DEPTH:
                raise MalformedBody(f"The body is nested deeper than {MAX_DEPTH} levels.")
        else:
            depth -= 1


def refuse_unstorable(raw: bytes) -> None:
    """Raise `ValidationError` naming the first place that holds NUL or half a surrogate pair."""
    try:
        # Numbers are not looked at: int() would raise for one of 5,000 digits, and hide what is behind it.
        parsed = json.loads(raw, object_pairs_hook=_Members, parse_int=float)
    except ValueError:
        return  # not JSON: the decoder says so better
    for place, text in _texts(parsed, []):
        refuse_unstorable_text(text, ["body", *place])


def refuse_unstorable_text(text: str, loc: list[str | int]) -> None:
    if "\x00" in text:
        raise ValidationError("must not contain the NUL character (\\u0000)", _printable(loc))
    if _SURROGATE.search(text):
        raise ValidationError("must not contain half a surrogate pair (\\ud800 to \\udfff)", _printable(loc))


def _printable(loc: list[str | int]) -> list[str | int]:
    return [
        part.encode("ascii", "backslashreplace").decode().replace("\x00", "\\u0000")
        if isinstance(part, str)
        else part
        for part in loc
    ]


def _texts(value: Any, place: list[str | int]) -> Iterator[tuple[list[str | int], str]]:
    if isinstance(value, str):
        yield place, value
    elif isinstance(value, _Members):
        for key, item in value:
            yield [*place, key], key
            yield from _texts(item, [*place, key])
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _texts(item, [*place, index])
