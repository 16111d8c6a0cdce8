"""Walks a JSON Schema and fills it with facts; what it returns is valid, whatever the facts are."""

import math
from typing import Any

from llm_service.errors import ModelRejected
from llm_service.llm.offline.bounds import (
    NEUTRAL,
    allows_number,
    find_format,
    find_pattern,
    fit_text,
    format_of,
    neutral_number,
)
from llm_service.llm.offline.facts import Facts
from llm_service.llm.offline.lists import Seed, find_seeds
from llm_service.llm.offline.shape import MOST_DEPTH, height, measure, name_of
from llm_service.llm.offline.values import (
    MISSING,
    Scope,
    choose_value,
    fallback_text,
    read_number,
    read_text,
    read_truth,
)

MOST_VALUES = 20_000
MOST_ENTRIES = 500
"""Entries of all lists together; after that, lists hold no more than they must."""
OPTIONAL_DEPTH = 12
"""Below this, only what a schema demands is filled: a schema that contains itself comes to an end."""


def fill(schema: dict[str, Any], facts: Facts) -> Any:
    """Return a value of `schema`. Raises ModelRejected for one that is too deep or too large to be filled."""
    return _Filler(schema).fill(schema, "answer", Scope(facts), needed=True)


class _Filler:
    """One walk: the definitions, and how many values, entries and levels are left."""

    def __init__(self, schema: dict[str, Any]) -> None:
        self.definitions: dict[str, Any] = schema.get("$defs", {})
        self.heights = measure(self.definitions)
        self.values_left = MOST_VALUES
        self.entries_left = MOST_ENTRIES
        self.depth = 0
        if height(schema, self.heights) > MOST_DEPTH:
            raise ModelRejected("The offline model cannot fill a schema this deep, or one without an end.")

    def fill(self, schema: dict[str, Any], name: str, scope: Scope, *, needed: bool) -> Any:
        """Fill one value; MISSING when nothing was found and it is not `needed`."""
        self.values_left -= 1
        if self.values_left < 0:
            raise ModelRejected("The offline model cannot fill a schema this large.")
        self.depth += 1
        try:
            return self._fill_kind(self._resolve(schema), name, scope, needed=needed)
        finally:
            self.depth -= 1

    def _resolve(self, schema: dict[str, Any]) -> dict[str, Any]:
        # A chain of references has an end: its height was measured.
        while "$ref" in schema:
            schema = self.definitions[name_of(schema)]
        return schema

    def _fill_kind(self, schema: dict[str, Any], name: str, scope: Scope, *, needed: bool) -> Any:
        if "anyOf" in schema:
            return self._fill_any(schema, name, scope, needed=needed)
        if "enum" in schema:
            return _choose(name, schema["enum"], scope, needed=needed)
        kind = schema.get("type", "string")
        if isinstance(kind, list):
            options = [schema | {"type": each} for each in kind]
            return self._fill_any({"anyOf": options}, name, scope, needed=needed)
        if kind == "object":
            return self._fill_object(schema, scope, needed=needed)
        if kind == "array":
            return self._fill_array(schema, name, scope, needed=needed)
        return _fill_scalar(kind, schema, name, scope, needed=needed)

    def _fill_any(self, schema: dict[str, Any], name: str, scope: Scope, *, needed: bool) -> Any:
        options = [self._resolve(option) for option in schema["anyOf"]]
        solid = [option for option in options if option.get("type") != "null"]
        nullable = len(solid) < len(options)
        for option in solid if self.depth <= OPTIONAL_DEPTH else []:
            described = {"description": schema.get("description", "")} | option
            value = self.fill(described, name, scope, needed=False)
            if value is not MISSING:
                return value
        if not needed:
            return MISSING
        lowest = min(solid, key=lambda option: height(option, self.heights), default=None)
        return None if nullable or lowest is None else self.fill(lowest, name, scope, needed=True)

    def _fill_object(self, schema: dict[str, Any], scope: Scope, *, needed: bool) -> Any:
        properties: dict[str, Any] = schema.get("properties", {})
        sought = properties if self.depth <= OPTIONAL_DEPTH else {}
        filled = {name: self.fill(part, name, scope, needed=False) for name, part in sought.items()}
        if not needed and all(value is MISSING for value in filled.values()):
            return MISSING
        return {
            name: self.fill(part, name, scope, needed=True)
            if filled.get(name, MISSING) is MISSING
            else filled[name]
            for name, part in properties.items()
        }

    def _fill_array(self, schema: dict[str, Any], name: str, scope: Scope, *, needed: bool) -> Any:
        items = schema.get("items", {})
        least = schema.get("minItems", 0)
        most = min(schema.get("maxItems", math.inf), max(self.entries_left, least))
        entries: list[Any] = []
        for seed in self._find_seeds(schema, name, scope):
            if len(entries) >= most:
                break
            self.entries_left -= 1
            entries.append(self.fill(items, name, Scope(scope.facts, seed), needed=True))
        if not entries and not needed:
            return MISSING
        while len(entries) < least:
            entries.append(self.fill(items, name, scope, needed=True))
        return entries

    def _find_seeds(self, schema: dict[str, Any], name: str, scope: Scope) -> list[Seed]:
        if self.depth > OPTIONAL_DEPTH or self.entries_left <= 0:
            return []
        parts = " ".join(self._resolve(schema.get("items", {})).get("properties", {}))
        return find_seeds(name, schema.get("description", ""), parts, scope.narrowed)


def _choose(name: str, values: list[Any], scope: Scope, *, needed: bool) -> Any:
    found = choose_value(name, values, scope)
    if found is not MISSING or not needed:
        return found
    modest = (value for value in values if value is None or value in ("unknown", "other", "none", "n/a"))
    return next(modest, values[0])


def _fill_scalar(kind: str, schema: dict[str, Any], name: str, scope: Scope, *, needed: bool) -> Any:
    if kind == "null":
        return None if needed else MISSING
    if kind == "boolean":
        truth = read_truth(name, scope)
        return False if truth is MISSING and needed else truth
    if kind in ("integer", "number"):
        number = read_number(name, scope, whole=kind == "integer")
        if number is not MISSING and allows_number(number, schema):
            return number
        return neutral_number(schema, whole=kind == "integer") if needed else MISSING
    return _fill_text(schema, name, scope, needed=needed)


def _fill_text(schema: dict[str, Any], name: str, scope: Scope, *, needed: bool) -> Any:
    form = format_of(schema)
    if form is not None:
        found = find_format(form, f"{scope.prose}\n{scope.named(name)}")
        return found or (NEUTRAL.get(form, "") if needed else MISSING)
    text = read_text(name, scope)
    if "pattern" in schema:
        return _match(schema, [text] if isinstance(text, str) else [], name, scope, needed=needed)
    if text is MISSING and not needed:
        return MISSING
    return fit_text(fallback_text(name, scope) if text is MISSING else text, schema)


def _match(schema: dict[str, Any], texts: list[str], name: str, scope: Scope, *, needed: bool) -> Any:
    found = find_pattern(schema["pattern"], [*texts, scope.named(name), scope.prose])
    if found is None and needed:
        raise ModelRejected(f"The offline model found nothing for {name!r} that matches its pattern.")
    return MISSING if found is None else found
