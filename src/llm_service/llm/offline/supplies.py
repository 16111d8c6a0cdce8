"""What a household should have, and how much: computed from people and days, then what the caller named."""

import re
from typing import Any

from llm_service.llm.offline.facts import Facts, tell
from llm_service.llm.offline.readers import find_needs
from llm_service.llm.offline.text import capitalize, finish, word_set

LITRES_A_DAY = 3
MEALS_A_DAY = 3
ITEM_KEYS = word_set("items item contents contains products supplies materials ingredients equipment parts")
TIMES = "\u00d7"
COUNTED = re.compile(
    rf"(\d{{1,6}}) ?(?:x|{TIMES}) ?(\D.*)"
    r"|(\d{1,6} ?[a-z]{1,10}) of (.+)"
    r"|(\d{1,6}) (\D.*)",
    re.IGNORECASE,
)
SIZED = re.compile(
    r"\d{1,6} ?(?:litres?|liters?|l|ml|kg|g|m|cm|w|wh|mah|v|met(?:er|re)s?|inch|gallons?)\b", re.IGNORECASE
)


def find_supplies(facts: Facts) -> list[dict[str, Any]]:
    """Entries with `name`, and where known `quantity`, `reason` and `text`; the first of each name."""
    found = _compute(facts) + _read_needs(facts) + _read_items(facts)
    distinct: dict[str, dict[str, Any]] = {}
    for supply in found:
        distinct.setdefault(supply["name"].casefold(), supply)
    return list(distinct.values())


def compute_litres(facts: Facts) -> int | None:
    """Drinking water in litres for everybody over the whole time; None without both numbers."""
    if facts.people is None or facts.days is None:
        return None
    return round(facts.people * facts.days * LITRES_A_DAY)


def _compute(facts: Facts) -> list[dict[str, Any]]:
    litres = compute_litres(facts)
    if litres is None:
        return []
    meals = round(litres / LITRES_A_DAY * MEALS_A_DAY)
    each = f"{tell(facts.people)} people {TIMES} {tell(facts.days)} days"
    return [
        _supply("Drinking water", f"{litres} litres", f"{each} {TIMES} {LITRES_A_DAY} litres"),
        _supply("Food", f"{meals} meals", f"{each} {TIMES} {MEALS_A_DAY} meals"),
    ]


def _read_needs(facts: Facts) -> list[dict[str, Any]]:
    return [_supply(need, None, sentence) for sentence in facts.sentences for need in find_needs(sentence)]


def _read_items(facts: Facts) -> list[dict[str, Any]]:
    found = []
    for fact in facts.background:
        if not isinstance(fact.value, list):
            continue
        if fact.key.casefold() in ITEM_KEYS:
            found += [_from_item(item, None) for item in fact.value]
        for group in fact.value:
            found += _from_group(group) if isinstance(group, dict) else []
    return [supply for supply in found if supply["name"]]


def _from_group(group: dict[str, Any]) -> list[dict[str, Any]]:
    items = [item for key in group if key.casefold() in ITEM_KEYS for item in _as_list(group[key])]
    owner = group.get("name")
    return [_from_item(item, owner if isinstance(owner, str) else None) for item in items]


def _from_item(item: Any, owner: str | None) -> dict[str, Any]:
    name, quantity = _divide(tell(item))
    return _supply(name, quantity, f"Part of {owner}" if owner else None)


def _supply(name: str, quantity: str | None, reason: str | None) -> dict[str, Any]:
    told = finish(f"{name}: {quantity}" if quantity and quantity not in name else name)
    return {
        "name": capitalize(name),
        "quantity": quantity,
        "reason": finish(reason) if reason else None,
        "text": told,
    }


def _divide(item: str) -> tuple[str, str | None]:
    """Tell "10 batteries" and "2 kg of rice" into thing and quantity; a "20 litre canister" is one thing."""
    found = COUNTED.fullmatch(item)
    if found is None or (SIZED.match(item) and found[4] is None):
        return item, None
    quantity, name = (group for group in found.groups() if group is not None)
    return name, quantity


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
