"""The steps of a way: from the origin over what the caller wrote about it to the destination."""

import re
from collections.abc import Sequence
from typing import Any

from llm_service.llm.offline.facts import Facts
from llm_service.llm.offline.readers import find_distance_km, find_roads, is_imperative, is_kind
from llm_service.llm.offline.text import finish

ORIGIN_KEYS = ("origin", "start", "from", "departure")
DESTINATION_KEYS = ("destination", "end", "to", "arrival", "target")
THEN = re.compile(r",? (?:and )?(?:then|afterwards|after that),? |; ")


def find_steps(facts: Facts) -> list[dict[str, Any]]:
    """Return the route between two places when both are given, else the instructions in the text."""
    origin, destination = _get_text(facts, ORIGIN_KEYS), _get_text(facts, DESTINATION_KEYS)
    told = [part for sentence in facts.sentences if _leads(sentence) for part in _split(sentence)]
    if origin and destination:
        arrival = "Arrive at" if told else f"Drive from {origin} to"
        start = [f"Start at {origin}"] if told else []
        return [to_step(step) for step in [*start, *told, f"{arrival} {destination}"]]
    return [to_step(step) for step in told or [each for each in facts.sentences if is_imperative(each)]]


def find_alternatives(facts: Facts) -> list[dict[str, Any]]:
    return [to_step(sentence) for sentence in facts.sentences if is_kind("alternative", sentence)]


def find_cautions(facts: Facts) -> list[dict[str, Any]]:
    """Return what the caller wants avoided, and every sentence that warns."""
    avoided = facts.get("avoid")
    listed = avoided if isinstance(avoided, list) else []
    told = [f"Avoid {entry}" for entry in listed if isinstance(entry, str)]
    warnings = [each for each in facts.sentences if _warns(each) and each not in listed]
    return [{"text": finish(text), "name": text} for text in told + warnings]


def _warns(sentence: str) -> bool:
    return is_kind("caution", sentence) and not is_kind("alternative", sentence)


def to_step(text: str) -> dict[str, Any]:
    condition = _read_condition(text)
    # "If the A64 is blocked, take the A59": the road is the one outside the condition.
    roads = find_roads(text.replace(condition, "") if condition else text)
    step = {"text": finish(text), "name": text, "road": roads[0] if roads else None}
    reason = finish(condition) if condition else None
    return step | {"distance": find_distance_km(text), "reason": reason}


def _leads(sentence: str) -> bool:
    if is_kind("alternative", sentence):
        return False
    warns = is_kind("caution", sentence) and not is_imperative(sentence)
    return is_kind("move", sentence) and not warns and not sentence.casefold().startswith(("avoid", "do not"))


def _split(sentence: str) -> list[str]:
    return [part for part in THEN.split(sentence) if len(part) > 3]


def _read_condition(text: str) -> str | None:
    found = re.search(r"\b(?:if|when|in case|because|since)\b[^.,;]{3,150}", text, re.IGNORECASE)
    return found[0] if found else None


def _get_text(facts: Facts, keys: Sequence[str]) -> str | None:
    named = {fact.key.casefold(): fact.value for fact in reversed(facts.named) if isinstance(fact.value, str)}
    return next((named[key].rstrip(" .") for key in keys if key in named), None)
