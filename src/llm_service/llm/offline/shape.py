"""How deep a schema has to be filled at the least: what ends a schema that contains itself."""

import math
from typing import Any

MOST_DEPTH = 120


def measure(definitions: dict[str, Any]) -> dict[str, float]:
    """Return the least height of every definition, `inf` for one that can never be complete."""
    heights = dict.fromkeys(definitions, math.inf)
    for _ in range(len(definitions) + 1):
        found = {name: height(part, heights) for name, part in definitions.items()}
        if found == heights:
            break
        heights = found
    return heights


def height(schema: dict[str, Any], heights: dict[str, float], depth: int = 0) -> float:
    """Return the levels of the smallest value of `schema`, given those of the definitions."""
    if depth > MOST_DEPTH:
        return math.inf
    if "$ref" in schema:
        return 1 + heights.get(name_of(schema), math.inf)
    if "anyOf" in schema:
        return 1 + min((height(option, heights, depth + 1) for option in schema["anyOf"]), default=0)
    kind = schema.get("type")
    if kind == "object":
        parts = schema.get("properties", {}).values()
        return 1 + max((height(part, heights, depth + 1) for part in parts), default=0)
    if kind == "array" and schema.get("minItems", 0):
        return 1 + height(schema.get("items", {}), heights, depth + 1)
    return 1


def name_of(reference: dict[str, Any]) -> str:
    return str(reference["$ref"]).removeprefix("#/$defs/")
