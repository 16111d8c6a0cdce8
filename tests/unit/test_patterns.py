"""The regular expressions of the code, on text made to be slow. Ids: docs/security.md."""

import importlib
import pkgutil
import re
import time
from collections.abc import Iterator
from typing import Any

import llm_service

PIECES = [
    "a",
    "1",
    " ",
    "\n",
    ":",
    "://",
    "://a:",
    "@",
    "/",
    ".",
    "-",
    "_",
    "=",
    "&",
    '"',
    "\\",
    "\\\\",
    '\\"',
    "[",
    "{",
]
PIECES += [
    "bearer ",
    "password=",
    "secret",
    "+420 ",
    "2026-01-01T00:00:00",
    "0.",
    "1,",
    "; ",
    "* ",
    "- a",
    "a b ",
    "A",
    "é",
]

NOT_A_CALLERS = {"llm_service.__main__", "llm_service.failpoints"}
"""The first runs the command; the other reads a variable that only tests set."""


def patterns() -> Iterator[tuple[str, re.Pattern[Any]]]:
    """Every pattern that is made when a module is read."""
    for module in pkgutil.walk_packages(llm_service.__path__, "llm_service."):
        if module.name in NOT_A_CALLERS:
            continue
        for name, value in vars(importlib.import_module(module.name)).items():
            if isinstance(value, re.Pattern):
                yield f"{module.name}.{name}", value


def seconds(pattern: re.Pattern[Any], text: str) -> float:
    subject: Any = text.encode() if isinstance(pattern.pattern, bytes) else text
    started = time.perf_counter()
    for way in (pattern.search, pattern.fullmatch, pattern.findall):
        way(subject)
    return time.perf_counter() - started


def test_s45_no_pattern_of_the_code_is_slow() -> None:
    """16 times the text may take 16 times as long, and some more; a pattern that goes back takes 256 times."""
    found = dict(patterns())
    assert len(found) > 10
    slow = []
    for name, pattern in found.items():
        for piece in PIECES:
            texts = [piece * (size // len(piece)) + "!" for size in (1_500, 24_000)]
            short, long = (seconds(pattern, text) for text in texts)
            if long > 0.05 and long > 60 * short:
                slow.append((name, piece, round(short, 4), round(long, 4)))
    assert slow == []
