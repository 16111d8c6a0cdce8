"""The JSON Schema of a msgspec Struct, in the subset that strict structured output accepts.

Strict mode wants an object at the root, every property required, no open maps and no defaults. What it cannot
express as a keyword (lengths of strings, uniqueness, unusual formats) is said in the description instead, so
that the model still knows; `msgspec.json.decode` remains the judge of the answer.
"""

from functools import cache
from typing import Any

import msgspec

REFERENCE = "#/$defs/{name}"

KEPT = frozenset(
    {"type", "enum", "items", "anyOf", "description", "pattern", "minItems", "maxItems", "multipleOf"}
    | {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}
)
FORMATS = frozenset({"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"})
JSON_TYPES = {str: "string", bool: "boolean", int: "integer", float: "number", type(None): "null"}


@cache
def strict_schema(struct_type: type[msgspec.Struct]) -> dict[str, Any]:
    """Return the strict schema of `struct_type`; one dict for each type, not to be changed.

    Raises TypeError, naming the field, for what strict mode has no words for: open maps, `Any`, fixed tuples.
    """
    roots, components = msgspec.json.schema_components((struct_type,), ref_template=REFERENCE)
    reference = roots[0].get("$ref", "")
    definitions = {name: _tighten(part, name) for name, part in components.items()}
    name = reference.removeprefix(REFERENCE.format(name=""))
    root = definitions.get(name, {})
    if root.get("type") != "object":
        raise TypeError(f"{struct_type.__name__}: a structured answer has an object at its root")
    used = _names_used(root, definitions)
    return root | (
        {"$defs": {name: definitions[name] for name in definitions if name in used}} if used else {}
    )


def _tighten(part: dict[str, Any], place: str) -> dict[str, Any]:
    if "$ref" in part:
        return _tighten_reference(part)
    if not part.keys() & {"type", "enum", "anyOf"}:
        raise TypeError(f"{place}: strict schemas have no place for a value of any type")
    strict = {key: value for key, value in part.items() if key in KEPT}
    strict |= _say_in_words(part)
    if part.get("format") in FORMATS:
        strict["format"] = part["format"]
    if "enum" in part:
        strict["type"] = _type_of_values(part["enum"])
    if "anyOf" in part:
        strict["anyOf"] = [_tighten(option, place) for option in part["anyOf"]]
    if part.get("type") == "array":
        strict |= _tighten_array(part, place)
    if part.get("type") == "object":
        strict |= _tighten_object(part, place)
    return strict


def _tighten_reference(part: dict[str, Any]) -> dict[str, Any]:
    # A reference allows no keyword beside it, so a description needs a wrapper.
    reference = {"$ref": part["$ref"]}
    return {"description": part["description"], "anyOf": [reference]} if "description" in part else reference


def _tighten_array(part: dict[str, Any], place: str) -> dict[str, Any]:
    if "prefixItems" in part or "items" not in part:
        raise TypeError(f"{place}: strict schemas know lists of one type, not fixed tuples")
    return {"items": _tighten(part["items"], f"{place}[]")}


def _tighten_object(part: dict[str, Any], place: str) -> dict[str, Any]:
    if "properties" not in part or isinstance(part.get("additionalProperties"), dict):
        raise TypeError(f"{place}: strict schemas have no open maps; use a list of objects with named fields")
    properties = {name: _tighten(each, f"{place}.{name}") for name, each in part["properties"].items()}
    return {"properties": properties, "required": list(properties), "additionalProperties": False}


def _type_of_values(values: list[Any]) -> str | list[str]:
    types = list(dict.fromkeys(JSON_TYPES[type(value)] for value in values))
    return types[0] if len(types) == 1 else types


def _say_in_words(part: dict[str, Any]) -> dict[str, str]:
    words = [part["description"]] if "description" in part else []
    if "minLength" in part:
        words.append(f"At least {part['minLength']} characters.")
    if "maxLength" in part:
        words.append(f"At most {part['maxLength']} characters.")
    if "format" in part and part["format"] not in FORMATS:
        words.append(f"Format: {part['format']}.")
    if "contentEncoding" in part:
        words.append(f"Format: {part['contentEncoding']}.")
    if part.get("uniqueItems"):
        words.append("No item twice.")
    return {"description": " ".join(words)} if words else {}


def _names_used(root: dict[str, Any], definitions: dict[str, Any]) -> set[str]:
    used: set[str] = set()
    ahead: list[Any] = [root]
    while ahead:
        part = ahead.pop()
        if isinstance(part, list):
            ahead.extend(part)
        elif isinstance(part, dict):
            ahead.extend(part.values())
            name = str(part.get("$ref", "")).removeprefix(REFERENCE.format(name=""))
            if name in definitions and name not in used:
                used.add(name)
                ahead.append(definitions[name])
    return used
