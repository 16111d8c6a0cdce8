"""The facts of one request: what the caller sent, flattened to named values and sentences."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import msgspec

from llm_service.llm.model import Message
from llm_service.llm.offline.text import (
    capitalize,
    clean,
    finish,
    label,
    split_sentences,
    stem,
    stems,
    word_set,
    words_of,
)

READ_CHARACTERS = 20_000
READ_VALUES = 1_000
FOCUS_KEYS = ("heading", "section", "topic", "focus", "question", "subject")
PEOPLE_KEYS = ("family_size", "people", "persons", "household_size", "group_size", "participants", "guests")
UNITS = word_set(
    "days hours minutes weeks months years km miles metres litres kg people persons eur usd percent"
)
DAY_KEYS = ("duration_days", "days", "number_of_days", "duration")


class Fact(msgspec.Struct, frozen=True):
    """One named value: text, a number, a truth value, a list or an object."""

    key: str
    value: Any


class Facts:
    """What can be known of a request or, with `within`, of one thing found in it."""

    def __init__(self, named: Sequence[Fact], texts: Sequence[str]) -> None:
        self.named = list(named)
        self.texts = list(texts)

    @classmethod
    def read(cls, messages: Sequence[Message]) -> "Facts":
        asked = [message.content for message in messages if message.role == "user"]
        for content in reversed(asked):
            found = _decode_object(content)
            if found is not None:
                return cls.of(found)
        return cls((), [clean(asked[-1][:READ_CHARACTERS])] if asked else [])

    @classmethod
    def of(cls, values: dict[str, Any]) -> "Facts":
        named = list(_flatten(values, [READ_CHARACTERS, READ_VALUES]))
        return cls(named, [fact.value for fact in named if _is_prose(fact.value)])

    def get(self, name: str) -> Any:
        """Return the value under this name, or one ending in the same word; None when there is none."""
        wanted = _key_stems(name)
        exact = next((fact.value for fact in self.named if _key_stems(fact.key) == wanted), None)
        if exact is not None or not wanted:
            return exact
        return next((fact.value for fact in self.named if _key_stems(fact.key)[-1:] == wanted[-1:]), None)

    def get_number(self, names: Sequence[str]) -> int | float | None:
        found = (fact.value for name in names for fact in self.named if fact.key.casefold() == name)
        return next((value for value in found if isinstance(value, int | float) and value is not True), None)

    @property
    def people(self) -> int | float | None:
        return self.get_number(PEOPLE_KEYS)

    @property
    def days(self) -> int | float | None:
        return self.get_number(DAY_KEYS)

    @cached_property
    def focus(self) -> Fact | None:
        """The one thing a request is about, when it says so (a heading, a topic, a question)."""
        short = [fact for fact in self.named if isinstance(fact.value, str) and len(fact.value) < 200]
        return next((fact for key in FOCUS_KEYS for fact in short if fact.key.casefold() == key), None)

    @cached_property
    def background(self) -> list[Fact]:
        """The named values, without the focus and the list it was taken from."""
        if self.focus is None:
            return self.named
        key = stem(self.focus.key)
        return [fact for fact in self.named if key not in _key_stems(fact.key)]

    @cached_property
    def sentences(self) -> list[str]:
        """Every sentence of the caller's prose: long texts, and lists with long entries."""
        entries = [
            entry
            for fact in self.background
            if isinstance(fact.value, list)
            for entry in fact.value
            if isinstance(entry, str) and len(words_of(entry)) > 2
        ]
        prose = [fact.value for fact in self.background if _is_prose(fact.value)] or self.texts
        return [sentence for text in [*prose, *entries] for sentence in split_sentences(text)]

    @cached_property
    def statements(self) -> list[str]:
        """Every named value as a short sentence: "Family size: 4."."""
        return [finish(capitalize(say(fact))) for fact in self.background if tell(fact.value)]

    def list_particulars(self, told: Sequence[str] = ()) -> str:
        """Return the short values in one line, without the statements already told.

        For example "Location: Brno; family size: 4; duration: 7 days."
        """
        short = [say(fact) for fact in self.background if _is_particular(fact.value)]
        left = [each for each in short if finish(capitalize(each)) not in told]
        return finish(capitalize("; ".join(left[:6])))

    @cached_property
    def focus_stems(self) -> frozenset[str]:
        """Words of the focus; for the name of a value also those of the value. Empty without a focus."""
        if self.focus is None:
            return frozenset()
        wanted = _key_stems(self.focus.value)
        value = next((fact.value for fact in self.background if _key_stems(fact.key) == wanted), None)
        return stems(f"{self.focus.value} {tell(value)}")

    @cached_property
    def stems(self) -> frozenset[str]:
        return stems(" ".join([*self.texts, *self.statements]))


def say(fact: Fact) -> str:
    """Say a value under its name: "family size: 4", "duration: 7 days"."""
    words = label(fact.key).lower().split()
    if len(words) > 1 and words[-1] in UNITS and isinstance(fact.value, int | float):
        return f"{' '.join(words[:-1])}: {tell(fact.value)} {words[-1]}"
    return f"{' '.join(words)}: {tell(fact.value)}"


def tell(value: Any) -> str:
    """Put a value in words: lists as enumerations, objects by their name."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return "; ".join(filter(None, map(tell, value[:20]))) if _has_long(value) else _enumerate(value)
    if isinstance(value, dict):
        texts = [tell(each) for each in value.values() if not isinstance(each, dict | list)]
        return value["name"] if isinstance(value.get("name"), str) else ", ".join(filter(None, texts))
    return "" if value is None else str(value).rstrip(" .")


def _enumerate(values: list[Any]) -> str:
    return ", ".join(filter(None, map(tell, values[:20])))


def _has_long(values: list[Any]) -> bool:
    return any(isinstance(value, str) and "," in value for value in values)


def _decode_object(content: str) -> dict[str, Any] | None:
    try:
        found = msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _flatten(values: dict[str, Any], budget: list[int], depth: int = 0) -> Iterator[Fact]:
    nested = []
    for key, value in values.items():
        if budget[1] <= 0 or budget[0] <= 0:
            return
        if isinstance(value, dict):
            nested.append(value)
            continue
        kept = _bound(value, budget, depth)
        if kept not in (None, "", []):
            yield Fact(clean(key[:100]), kept)
    for inner in nested if depth < 12 else []:
        yield from _flatten(inner, budget, depth + 1)


def _bound(value: Any, budget: list[int], depth: int) -> Any:
    # Copies a value while budget lasts: characters first, then values.
    budget[1] -= 1
    if budget[1] < 0 or budget[0] <= 0 or depth > 12:
        return None
    if isinstance(value, str):
        kept = clean(value[: budget[0]])
        budget[0] -= len(kept)
        return kept
    if isinstance(value, list):
        bounded = (_bound(each, budget, depth + 1) for each in value[:READ_VALUES])
        return [each for each in bounded if each not in (None, "")]
    if isinstance(value, dict):
        pairs = ((clean(key[:100]), _bound(each, budget, depth + 1)) for key, each in value.items())
        return {key: each for key, each in pairs if each not in (None, "")}
    return value


def _is_prose(value: Any) -> bool:
    return isinstance(value, str) and len(words_of(value[:500])) > 3


def _is_particular(value: Any) -> bool:
    entries = value if isinstance(value, list) else [value]
    plain = not any(isinstance(entry, dict) or _is_prose(entry) for entry in entries)
    return plain and 0 < len(tell(value)) <= 60


def _key_stems(key: str) -> list[str]:
    return [stem(word) for word in label(key).split()]
