"""How a value stands in a query: as itself, or under its name, so that the query is written once for all values."""

from collections.abc import Callable
from typing import Any

from sqlalchemy import ColumnElement, bindparam, literal
from sqlalchemy.types import TypeEngine

Bind = Callable[[str, Any, TypeEngine[Any]], ColumnElement[Any]]
"""From a value's name, the value, and its type."""


def itself(_: str, value: Any, kind: TypeEngine[Any]) -> ColumnElement[Any]:
    return literal(value, kind)


def by_name(name: str, _: Any, kind: TypeEngine[Any]) -> ColumnElement[Any]:
    return bindparam(name, type_=kind)
