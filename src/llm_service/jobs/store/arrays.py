"""Many rows as the values of one statement: an array for each column, prepared once for any number of rows."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def unnested(types: Mapping[str, str]) -> str:
    """The rows, to stand in FROM before their alias; `types` are PostgreSQL's, by column."""
    arrays = ", ".join(f"CAST(:{name} AS {kind}[])" for name, kind in types.items())
    return f"unnest({arrays})"


def by_column(types: Mapping[str, str], rows: Iterable[Sequence[Any]]) -> dict[str, list[Any]]:
    """The values of `unnested`, from rows whose fields are in the order of the columns."""
    columns = list(zip(*rows, strict=True)) or [()] * len(types)
    return {name: list(column) for name, column in zip(types, columns, strict=True)}
