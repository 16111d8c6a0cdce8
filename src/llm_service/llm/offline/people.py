"""Reads people and services to call from prose: who, in which role, under which number."""

import re
from typing import Any

import msgspec

from llm_service.llm.offline.readers import IMPERATIVES
from llm_service.llm.offline.roles import find_roles
from llm_service.llm.offline.text import STOP_WORDS, WORD, capitalize, finish, split_sentences, word_set

PHONE = re.compile(r"(?<![\w.,])[+(]{0,2}\d[\d ()./\u2010-\u2015-]{4,20}\d(?!\w)")
SHORT_PHONE = re.compile(
    r"(?<![\w.,+-])\d{3,6}(?![\w,]|[.]\d|-\w|\s?(?:km|m|l|kg|days?|people|hours?|%|€|\$))"
)
SHORT_PHONE_CUE = re.compile(
    r"\b(?:call|dial|phone|tel|telephone|number|hotline|police|ambulance|fire|emergency|sos)\b", re.IGNORECASE
)
DATE = re.compile(
    r"\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[-/.] ?\d{1,2}[-/.] ?\d{2,4}|\d{4} ?[-\u2013] ?\d{4}"
)
TITLES = word_set("dr mr mrs ms miss prof mudr mgr ing sir father sister pastor officer")
PLACE_WORDS = word_set(
    """
    street st road rd avenue ave lane square park school hospital library church station bridge
    river hill hotel centre center hall university town city village county street market museum
    mall airport
    """
)
PLACE_CUES = word_set("in at near from to on of via towards toward through around behind under")
PRONOUN = re.compile(r"\b(?:her|his|their|she|he|they|it|its)\b", re.IGNORECASE)


NO_NAMES = STOP_WORDS | word_set("phone telephone tel mobile cell dial")


class Person(msgspec.Struct, frozen=True):
    name: str
    role: str | None
    phone: str | None
    sentence: str


class Mark(msgspec.Struct, frozen=True):
    """A name, a role or a phone, and where it stands in its clause."""

    start: int
    end: int
    kind: str
    text: str


def find_phones(text: str) -> list[str]:
    return [mark.text for mark in _mark_phones(text)]


def find_people(text: str) -> list[Person]:
    """Everybody who has a name of two words or a role to a name or a number, in order, once each."""
    found: list[Person] = []
    for sentence in split_sentences(text):
        for clause in re.split(r"; ", sentence):
            _add_clause(clause, found)
    distinct: dict[str, Person] = {}
    for person in found:
        known = distinct.get(person.name.casefold())
        distinct[person.name.casefold()] = _merge(known, person) if known else person
    return list(distinct.values())


def _add_clause(clause: str, found: list[Person]) -> None:
    groups = _group(clause)
    if groups and _continues(clause, groups[0], found):
        # "Her number is ..." belongs to whoever was named before.
        found[-1] = msgspec.structs.replace(found[-1], phone=groups.pop(0)["phone"].text)
    found.extend(person for group in groups if (person := _to_person(clause, group)))


def _continues(clause: str, group: dict[str, Mark], found: list[Person]) -> bool:
    waiting = bool(found) and found[-1].phone is None and set(group) == {"phone"}
    return waiting and bool(PRONOUN.search(clause[: group["phone"].start]))


def _group(clause: str) -> list[dict[str, Mark]]:
    marks = sorted(_mark(clause), key=lambda mark: mark.start)
    groups: list[dict[str, Mark]] = []
    previous: Mark | None = None
    for mark in marks:
        if previous is None or _starts_anew(mark, previous, groups[-1], clause[previous.end : mark.start]):
            groups.append({})
        groups[-1][mark.kind] = mark
        previous = mark
    return groups


def _starts_anew(mark: Mark, previous: Mark, group: dict[str, Mark], gap: str) -> bool:
    if mark.kind in group or len(gap) > 60:
        return True
    complete = "phone" in group and len(group) > 1
    return complete and previous.kind == "phone" and "(" not in gap


def _to_person(clause: str, group: dict[str, Mark]) -> Person | None:
    name, role, phone = group.get("name"), group.get("role"), group.get("phone")
    if phone is None and (name is None or role is None) and not _is_full_name(name):
        return None
    called = name.text if name else capitalize(role.text) if role else _name_before(clause, phone)
    title = role is None and name is not None and name.text.casefold().startswith(("dr ", "dr. ", "mudr"))
    known_as = _lower(role.text) if role else "doctor" if title else None
    return Person(name=called, role=known_as, phone=phone.text if phone else None, sentence=finish(clause))


def _lower(role: str) -> str:
    return role if role.isupper() else role[:1].lower() + role[1:]


def _is_full_name(name: Mark | None) -> bool:
    return name is not None and " " in name.text


def _name_before(clause: str, phone: Mark | None) -> str:
    before = clause[: phone.start] if phone else clause
    words = [word for word in WORD.findall(before[-80:]) if word.casefold() not in NO_NAMES]
    return capitalize(" ".join(words[-3:])) or (phone.text if phone else "")


def _merge(known: Person, again: Person) -> Person:
    return msgspec.structs.replace(known, role=known.role or again.role, phone=known.phone or again.phone)


def _mark(clause: str) -> list[Mark]:
    phones = _mark_phones(clause)
    roles = [Mark(start, end, "role", clause[start:end]) for start, end in find_roles(clause)]
    names = [name for name in _mark_names(clause, roles) if _is_person(clause, name, roles, phones)]
    return names + roles + phones


def _mark_phones(text: str) -> list[Mark]:
    cued = bool(SHORT_PHONE_CUE.search(text))
    least = 5 if cued else 7
    found = [Mark(m.start(), m.end(), "phone", m[0].strip(" ./-")) for m in PHONE.finditer(text)]
    kept = [_close_bracket(mark) for mark in found if _is_phone(mark.text, least)]
    inside = {place for mark in kept for place in range(mark.start, mark.end)}
    if cued:
        short = [Mark(m.start(), m.end(), "phone", m[0]) for m in SHORT_PHONE.finditer(text)]
        kept += [mark for mark in short if mark.start not in inside]
    return sorted(kept, key=lambda mark: mark.start)


def _is_phone(text: str, least: int) -> bool:
    return least <= sum(c.isdecimal() for c in text) <= 15 and not DATE.fullmatch(text)


def _close_bracket(mark: Mark) -> Mark:
    unbalanced = mark.text.startswith("(") and ")" not in mark.text
    return Mark(mark.start, mark.end, "phone", mark.text.lstrip("(")) if unbalanced else mark


def _mark_names(clause: str, roles: list[Mark]) -> list[Mark]:
    """Mark runs of words with a capital that are neither a role nor a place."""
    taken = {place for role in roles for place in range(role.start, role.end)}
    runs: list[list[re.Match[str]]] = []
    for word in WORD.finditer(clause):
        if word.start() in taken or not _could_be_name(word[0]):
            continue
        if runs and _joins(clause[runs[-1][-1].end() : word.start()], runs[-1][-1][0]):
            runs[-1].append(word)
        else:
            runs.append([word])
    named = [run for run in runs if not any(word[0].casefold() in PLACE_WORDS for word in run)]
    spans = [(run[0].start(), run[-1].end()) for run in named]
    return [Mark(start, end, "name", clause[start:end]) for start, end in spans]


def _could_be_name(word: str) -> bool:
    proper = word[0].isupper() and not (word.isupper() and len(word) > 1) and word[-1].isalpha()
    return proper and word.casefold() not in STOP_WORDS


def _joins(gap: str, previous: str) -> bool:
    return gap in (" ", "-") or (gap == ". " and (len(previous) == 1 or previous.casefold() in TITLES))


def _is_person(clause: str, name: Mark, roles: list[Mark], phones: list[Mark]) -> bool:
    before = clause[max(0, name.start - 16) : name.start].split()
    if before and before[-1].casefold() in PLACE_CUES:
        return False
    if name.text.split()[0].rstrip(".").casefold() in TITLES:
        return True
    beside_role = any(_beside(name, role) for role in roles)
    beside_phone = any(0 <= phone.start - name.end <= 24 for phone in phones)
    first, _, rest = name.text.partition(" ")
    opens_clause = name.start == 0 and not (roles or phones)
    full = bool(rest) and not opens_clause and first.casefold() not in IMPERATIVES
    return beside_role or beside_phone or full


def _beside(name: Mark, role: Mark) -> bool:
    gap = name.start - role.end if role.end <= name.start else role.start - name.end
    return 0 <= gap <= 12


def to_values(person: Person) -> dict[str, Any]:
    return {"name": person.name, "role": person.role, "phone": person.phone, "text": person.sentence}
