"""Fills one value: reads it from the entry at hand, then from all facts; MISSING when neither has it."""

from collections.abc import Callable
from typing import Any, Final

import msgspec

from llm_service.llm.offline import readers
from llm_service.llm.offline.facts import Fact, Facts, tell
from llm_service.llm.offline.lists import Seed
from llm_service.llm.offline.people import find_phones
from llm_service.llm.offline.supplies import LITRES_A_DAY, TIMES, compute_litres
from llm_service.llm.offline.text import (
    NUMBER,
    STOP_WORDS,
    capitalize,
    clip,
    finish,
    label,
    pick_telling,
    stem,
    stem_set,
    stems,
    word_set,
    words_of,
)

MISSING: Final = msgspec.UNSET
MOST_NAMES_IN_TITLE = 3


KINDS = (
    ("phone", stem_set("phone telephone tel mobile fax")),
    ("email", stem_set("email mail")),
    ("url", stem_set("url link website homepage")),
    ("date", stem_set("date day deadline birthday")),
    ("time", stem_set("time hour")),
    ("distance", stem_set("distance km kilometres miles mileage")),
    ("quantity", stem_set("quantity amount volume")),
    ("road", stem_set("road street highway")),
    ("role", stem_set("role relation relationship job profession")),
    ("reason", stem_set("reason why purpose rationale because note comment description")),
    ("title", stem_set("title headline")),
    ("summary", stem_set("summary overview abstract body content")),
    ("text", stem_set("text instruction sentence paragraph step action message quote detail explanation")),
    ("name", stem_set("name person who item thing label product contact place heading topic subject task")),
)
NEEDS_PROOF = word_set("phone email url date time distance quantity road role")
"""Kinds that are either found or unknown; the others can be told in the caller's sentences."""


class Scope(msgspec.Struct, frozen=True):
    """Where a value may come from: the entry of a list (or none), and all facts."""

    facts: Facts
    seed: Seed | None = None

    @property
    def prose(self) -> str:
        return str(self.seed.get("text", "")) if self.seed else "\n".join(self.facts.sentences)

    @property
    def narrowed(self) -> Facts:
        """The facts of a list inside an entry: those of the entry alone."""
        if self.seed is None:
            return self.facts
        named = [Fact(key, value) for key, value in self.seed.items() if key != "text" and value is not None]
        return Facts(named, [self.prose])

    def named(self, name: str) -> str:
        """Tell what the caller gave under this name, in words."""
        given = read_given(name, self)
        return "" if given is MISSING else tell(given)


def kind_of(name: str) -> str:
    words = {stem(word) for word in words_of(label(name))}
    return next((kind for kind, cues in KINDS if words & cues), "")


def read_given(name: str, scope: Scope) -> Any:
    """Return the value the caller gave under this very name, in the entry or among the facts."""
    if scope.seed is not None:
        own = scope.seed.get(name)
        return MISSING if own is None else own
    found = scope.facts.get(name)
    return MISSING if found is None else found


def read_text(name: str, scope: Scope) -> Any:
    """Return a text for the property `name`, else MISSING."""
    kind = kind_of(name)
    given = read_given(name, scope)
    if isinstance(given, str) and given and kind != "title":
        return given
    own = (scope.seed or {}).get(kind)
    if isinstance(own, str) and own:
        return own
    if scope.seed is not None and kind in scope.seed:
        return MISSING  # looked for when the entry was found, and not there
    found = PATTERN_READERS[kind](scope.prose) if kind in PATTERN_READERS else []
    if found or kind in NEEDS_PROOF:
        return found[0] if found else MISSING
    if scope.seed is not None:
        return _text_of_seed(kind, scope.seed)
    return _text_of_facts(kind, scope.facts)


def _text_of_seed(kind: str, seed: Seed) -> Any:
    if kind == "reason" and seed.get("name") == seed.get("text"):
        return MISSING
    by_kind = seed.get("name") if kind in ("name", "title") else seed.get("text") if kind else None
    return by_kind or MISSING


def _text_of_facts(kind: str, facts: Facts) -> Any:
    if kind in ("title", "name"):
        return compose_title(facts) or MISSING
    return compose_summary(facts) or MISSING if kind else MISSING


def compose_title(facts: Facts) -> str:
    """Put together the first list and the place, or the start of the most telling sentence."""
    lists = [fact.value for fact in facts.background if isinstance(fact.value, list)]
    names = [each for each in lists[0] if isinstance(each, str)][:MOST_NAMES_IN_TITLE] if lists else []
    place = facts.get("location")
    parts = [", ".join(names), place if isinstance(place, str) else ""]
    told = capitalize(": ".join(filter(None, parts)))
    sentences = pick_telling(facts.sentences, 1) or facts.statements[:1]
    return clip(told, 100) or (clip(sentences[0], 70).rstrip(".") if sentences else "")


def compose_summary(facts: Facts) -> str:
    """Put together the short facts, then the sentences that tell most; about the focus when there is one."""
    about = facts.focus_stems
    if about:
        near = [each for each in facts.statements if stems(each) & about][:3]
        told = [*near, *_water_line(facts, about)]
        return " ".join([*told, facts.list_particulars(told)]).strip()
    sentences = [finish(each) for each in pick_telling(facts.sentences, 3)]
    return " ".join(dict.fromkeys([facts.list_particulars(), *sentences])).strip()


def _water_line(facts: Facts, about: frozenset[str]) -> list[str]:
    litres = compute_litres(facts)
    if litres is None or not about & stem_set("supply supplies water food"):
        return []
    computed = f"{facts.people} people {TIMES} {facts.days} days {TIMES} {LITRES_A_DAY} litres"
    return [f"Drinking water: {computed} = {litres} litres."]


def fallback_text(name: str, scope: Scope) -> str:
    """Return a text that must be there although nothing was found: the entry or the caller's own sentence."""
    if kind_of(name) in NEEDS_PROOF:
        return ""
    own = str((scope.seed or {}).get("text") or (scope.seed or {}).get("name") or "")
    return own or compose_summary(scope.facts)


def read_number(name: str, scope: Scope, *, whole: bool) -> Any:
    """Return a number given by name, computed, or standing in the sentence that speaks of it."""
    given = read_given(name, scope)
    if isinstance(given, int | float) and not isinstance(given, bool):
        return round(given) if whole else given
    own = (scope.seed or {}).get(kind_of(name))
    if isinstance(own, int | float) and not isinstance(own, bool):
        return round(own) if whole else own
    if kind_of(name) == "distance":
        distance = readers.find_distance_km(scope.prose)
        return MISSING if distance is None else round(distance) if whole else distance
    words = {stem(word) for word in words_of(label(name)) if word.casefold() not in STOP_WORDS}
    counted = _count(name, words, scope)
    return counted if counted is not None else _number_near(words, scope, whole=whole)


def _count(name: str, words: set[str], scope: Scope) -> int | None:
    if words & stem_set("litres liters water") and scope.seed is None:
        return compute_litres(scope.facts)
    if words & stem_set("count number"):
        listed = next((scope.facts.get(word) for word in label(name).split()[:1]), None)
        return len(listed) if isinstance(listed, list) else None
    return None


def _number_near(words: set[str], scope: Scope, *, whole: bool) -> Any:
    for sentence in scope.prose.split("\n"):
        if words & stems(sentence) and (found := NUMBER.search(sentence)):
            number = float(found[0].replace(",", "."))
            return round(number) if whole else number
    return MISSING


def read_truth(name: str, scope: Scope) -> Any:
    """Return what was given by name; else whether the text speaks of it and does not deny it."""
    given = read_given(name, scope)
    if isinstance(given, bool):
        return given
    words = {stem(word) for word in words_of(label(name)) if word.casefold() not in STOP_WORDS}
    for sentence in scope.prose.split("\n"):
        if words and words <= stems(sentence) | stem_set("has is"):
            lowered = set(sentence.casefold().split())
            return not lowered & {"no", "not", "without", "never", "don't", "doesn't", "isn't", "aren't"}
    return MISSING


def choose_value(name: str, values: list[Any], scope: Scope) -> Any:
    """Return the enum's value that the caller gave or mentioned first, else MISSING."""
    given = read_given(name, scope)
    if given in values and not isinstance(given, list | dict):
        return given
    text = f"{scope.prose} {' '.join(scope.facts.statements) if scope.seed is None else ''}"
    told = [stem(word) for word in words_of(text)]
    for value in values:
        wanted = [stem(word) for word in words_of(label(str(value)))] if isinstance(value, str) else []
        if wanted and set(wanted) <= set(told):
            return value
    return MISSING


PATTERN_READERS: dict[str, Callable[[str], list[str]]] = {
    "phone": find_phones,
    "email": readers.EMAIL.findall,
    "url": readers.URL.findall,
    "date": readers.DATE.findall,
    "time": readers.TIME.findall,
    "road": readers.find_roads,
    "quantity": lambda text: [found.strip() for found in readers.QUANTITY.findall(text)],
}
