"""Brings a value within what its schema allows: lengths, formats, patterns, ranges, multiples."""

import math
import re
from typing import Any

from llm_service.llm.offline.text import clip, words_of

AT_LEAST = re.compile(r"At least (\d{1,6}) characters\.")
AT_MOST = re.compile(r"At most (\d{1,9}) characters\.")
FORMAT = re.compile(r"Format: (\w{1,20})\.")
PATTERN_TRIALS = 300
NEUTRAL = {
    "date-time": "1970-01-01T00:00:00Z",
    "date": "1970-01-01",
    "time": "00:00:00Z",
    "duration": "PT0S",
    "email": "unknown@example.invalid",
    "hostname": "example.invalid",
    "ipv4": "192.0.2.0",
    "ipv6": "2001:db8::",
    "uuid": "00000000-0000-0000-0000-000000000000",
    "uri": "about:blank",
    "decimal": "0",
    "base64": "",
}
"""What stands where a value of a format must stand and none was found."""
SHAPES = {
    "date-time": re.compile(
        r"\b\d{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|1\d|2[0-8])T[01]\d:[0-5]\d:[0-5]\d(?:Z|[+-]0\d:[0-5]\d)",
        re.ASCII,
    ),
    "date": re.compile(r"\b[12]\d{3}-(?:0[1-9]|1[0-2])-(?:0[1-9]|1\d|2[0-8])\b", re.ASCII),
    "email": re.compile(
        r"(?<![\w.+-])\w[\w+-]{0,63}@[a-z0-9-]{1,63}(?:\.[a-z0-9-]{1,63}){0,3}\.[a-z]{2,20}\b",
        re.ASCII | re.IGNORECASE,
    ),
    "uuid": re.compile(r"\b[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}\b", re.ASCII),
    "uri": re.compile(r"https?://[^\s<>\"')\]]{1,500}", re.ASCII),
    "decimal": re.compile(r"(?<![\w.,])\d{1,15}(?:\.\d{1,6})?(?![\w])", re.ASCII),
}


def format_of(schema: dict[str, Any]) -> str | None:
    """Return the format, also when strict mode moved it into the description."""
    told = FORMAT.search(schema.get("description", ""))
    return schema.get("format") or (told[1] if told else None)


def find_format(form: str, text: str) -> str | None:
    """Return the first value of the format in `text`."""
    shape = SHAPES.get(form)
    found = shape.search(text) if shape else None
    return found[0] if found else None


def fit_text(text: str, schema: dict[str, Any]) -> str:
    """Clip or pad to the lengths of the schema, also those that strict mode moved into the description."""
    description = schema.get("description", "")
    least, most = AT_LEAST.search(description), AT_MOST.search(description)
    shortest = schema.get("minLength", int(least[1]) if least else 0)
    longest = schema.get("maxLength", int(most[1]) if most else None)
    padded = text if len(text) >= shortest else (text or "-").ljust(shortest, ".")
    return clip(padded, longest)


def find_pattern(pattern: str, texts: list[str]) -> str | None:
    """Return the first of the texts, or of their words, that satisfies the pattern."""
    wanted = re.compile(pattern)
    parts = [word for text in texts for word in text.split()[:PATTERN_TRIALS]]
    bare = [word for text in texts for word in words_of(text)[:PATTERN_TRIALS]]
    return next((each for each in [*texts, *parts, *bare] if wanted.search(each[:500])), None)


def allows_number(number: float, schema: dict[str, Any]) -> bool:
    low, high = _range(schema)
    step = schema.get("multipleOf")
    strict = number != schema.get("exclusiveMinimum") and number != schema.get("exclusiveMaximum")
    return low <= number <= high and strict and (not step or number % step == 0)


def neutral_number(schema: dict[str, Any], *, whole: bool) -> float:
    """Return zero, or the allowed number closest to it."""
    low, high = _range(schema)
    step = schema.get("multipleOf") or (1 if whole else 0)
    nearest = min(max(0.0, low), high)
    if step:
        up = math.ceil(nearest / step) * step
        tries: list[float] = [up, up + step, up - step]
    else:
        middle = (low + high) / 2 if math.isfinite(low + high) else nearest + (1 if low >= 0 else -1)
        tries = [nearest, middle]
    chosen = next((each for each in tries if allows_number(each, schema)), nearest)
    return round(chosen) if whole else chosen


def _range(schema: dict[str, Any]) -> tuple[float, float]:
    low = max(schema.get("minimum", -math.inf), schema.get("exclusiveMinimum", -math.inf))
    high = min(schema.get("maximum", math.inf), schema.get("exclusiveMaximum", math.inf))
    return low, high
