"""What a list is a list of: chooses by name, shape and description, and finds one seed for each entry."""

from collections.abc import Callable
from typing import Any

from llm_service.llm.offline import readers
from llm_service.llm.offline.facts import Facts, tell
from llm_service.llm.offline.people import find_people, find_phones, to_values
from llm_service.llm.offline.route import find_alternatives, find_cautions, find_steps
from llm_service.llm.offline.supplies import ITEM_KEYS, compute_litres, find_supplies
from llm_service.llm.offline.text import (
    NUMBER,
    capitalize,
    finish,
    label,
    pick_telling,
    split_sentences,
    stem_set,
    stems,
    unique,
    word_set,
    words_of,
)

MOST_SEEDS = 40
MOST_TELLING = 6
MOST_TOPICS = 8
SUPPLY_WORDS = stem_set("supply water food storage stock")
SELECTIVE = word_set("recommended selected chosen suggested matching relevant best top fitting")

Seed = dict[str, Any]
"""What is known of one entry: `text` is the entry as a sentence, `name` the thing in few words."""


def find_seeds(name: str, description: str, parts: str, facts: Facts) -> list[Seed]:
    """Find the entries of the list `name`; `parts` are the names of an entry's own properties."""
    given = _given(name, facts)
    if given:
        return given[:MOST_SEEDS]
    for cues in (name, parts, description):
        reader = _choose_reader(stem_set(label(cues)))
        if reader is not None:
            return reader(facts)[:MOST_SEEDS]
    return _find_anything(facts)[:MOST_SEEDS]


def _choose_reader(cues: frozenset[str]) -> Callable[[Facts], list[Seed]] | None:
    return next((reader for words, reader in READERS if cues & words), None)


def _given(name: str, facts: Facts) -> list[Seed]:
    """Return the caller's own list of that name; of a "recommended" one what touches the other facts."""
    value = facts.get(name)
    if isinstance(value, str) and len(words_of(name)) == 1 and facts.focus is None:
        value = split_sentences(value) if len(split_sentences(value)) > 1 else None
    if not isinstance(value, list):
        return []
    seeds = [_to_seed(entry) for entry in value if entry not in ({}, [])]
    return _select(seeds, value, facts) if SELECTIVE & set(label(name).casefold().split()) else seeds


def _select(seeds: list[Seed], value: list[Any], facts: Facts) -> list[Seed]:
    others = [fact for fact in facts.background if fact.value is not value]
    wanted = stems(" ".join(tell(fact.value) for fact in others if not isinstance(fact.value, bool)))
    overlaps = [len(stems(seed["text"]) & wanted) for seed in seeds]
    ranked = sorted(range(len(seeds)), key=lambda place: (-overlaps[place], place))
    return [seeds[place] for place in ranked if overlaps[place]] or seeds


def _to_seed(entry: Any) -> Seed:
    """Keep an object's own values; `text` tells it in a sentence, `reason` what it is and holds."""
    if not isinstance(entry, dict):
        return {"name": capitalize(tell(entry)), "text": capitalize(tell(entry))}
    listed = [tell(entry[key]) for key in entry if key.casefold() in ITEM_KEYS and tell(entry[key])]
    described = entry.get("description")
    reasons = [described.rstrip(" .")] if isinstance(described, str) else []
    reasons += [f"holds {', '.join(listed)}"] if listed else []
    details = [tell(value) for key, value in entry.items() if key != "name" and tell(value)]
    text = finish(": ".join(filter(None, [tell(entry.get("name")), "; ".join(details)])))
    return {"reason": finish("; ".join(reasons)) or None} | entry | {"text": text}


def _find_people(facts: Facts) -> list[Seed]:
    return [to_values(person) for person in find_people(_prose(facts))]


def _find_meeting_places(facts: Facts) -> list[Seed]:
    found = readers.find_meeting_places(facts.sentences)
    return [{"name": place, "text": finish(sentence)} for place, sentence in found]


def _find_places(facts: Facts) -> list[Seed]:
    location = facts.get("location")
    named = [location] if isinstance(location, str) else []
    meeting = _find_meeting_places(facts)
    places = unique([*named, *readers.find_places(_prose(facts))])
    return meeting + [_with_sentence(place, facts) for place in places]


def _find_actions(facts: Facts) -> list[Seed]:
    """Find what the text asks for, close to the focus if there is one; failing that, plan for the focus."""
    about = facts.focus_stems
    asked = [each for each in facts.sentences if readers.is_imperative(each) or readers.is_kind("duty", each)]
    near = [each for each in asked if not about or stems(each) & about or about & SUPPLY_WORDS]
    actions = _store_water(facts, about) + [_to_action(sentence) for sentence in near]
    actions += _have_ready(facts, about)
    if facts.focus and not actions:
        actions = [f"Plan for {facts.focus.value.rstrip(' .')} ({facts.list_particulars().rstrip(' .')})"]
    return [{"text": finish(action), "name": action} for action in unique(actions)]


def _store_water(facts: Facts, about: frozenset[str]) -> list[str]:
    litres = compute_litres(facts)
    near = not about or bool(about & SUPPLY_WORDS)
    return [f"Store {litres} litres of drinking water"] if litres is not None and near else []


def _have_ready(facts: Facts, about: frozenset[str]) -> list[str]:
    """Name the caller's own sets of things whose description touches the focus."""
    entries = [each for fact in facts.background if isinstance(fact.value, list) for each in fact.value]
    sets = [_to_seed(each) for each in entries if isinstance(each, dict) and "name" in each]
    return [
        f"Have {each['name']} ready: {each['reason']}"
        for each in sets
        if each["reason"] and stems(each["text"]) & about
    ]


def _to_action(sentence: str) -> str:
    needs = [] if readers.is_imperative(sentence) else readers.find_needs(sentence)
    return f"Have ready: {', '.join(needs).lower()} ({sentence.rstrip(' .')})" if needs else sentence


def _find_topics(facts: Facts) -> list[Seed]:
    """Short entries of the caller's lists, supplies when they can be computed, then the named details."""
    lists = [fact for fact in facts.background if isinstance(fact.value, list)]
    short = [fact for fact in lists if all(_is_short(entry) for entry in fact.value)]
    topics = [capitalize(entry) for fact in short for entry in fact.value]
    if compute_litres(facts) is not None:
        topics.append(f"Supplies for {tell(facts.days)} days")
    detailed = [fact for fact in facts.background if fact not in short and len(tell(fact.value)) > 15]
    topics += [label(fact.key) for fact in detailed]
    if not topics:
        topics = _find_names(facts) or [capitalize(word) for word in sorted(facts.stems)][:MOST_TOPICS]
    return [{"name": topic, "text": topic} for topic in unique(topics)[:MOST_TOPICS]]


def _is_short(entry: Any) -> bool:
    return isinstance(entry, str) and 0 < len(words_of(entry)) <= 3


def _find_names(facts: Facts) -> list[str]:
    return unique(
        [*[person.name for person in find_people(_prose(facts))], *readers.find_places(_prose(facts))]
    )


def _find_telling(facts: Facts) -> list[Seed]:
    sentences = pick_telling(unique(facts.sentences), MOST_TELLING) or facts.statements
    return [{"text": finish(sentence), "name": sentence} for sentence in sentences]


def _find_anything(facts: Facts) -> list[Seed]:
    lists = [fact.value for fact in facts.background if isinstance(fact.value, list)]
    return [_to_seed(entry) for value in lists for entry in value if entry] or _find_telling(facts)


def _matches(find: Callable[[str], list[str]]) -> Callable[[Facts], list[Seed]]:
    return lambda facts: [_with_sentence(each, facts) for each in unique(find(_all_text(facts)))]


def _with_sentence(found: str, facts: Facts) -> Seed:
    sentence = next((each for each in facts.sentences if found in each), found)
    return {"name": found, "text": finish(sentence)}


def _prose(facts: Facts) -> str:
    return "\n".join(facts.sentences)


def _all_text(facts: Facts) -> str:
    return "\n".join([*facts.sentences, *facts.statements])


READERS: tuple[tuple[frozenset[str], Callable[[Facts], list[Seed]]], ...] = (
    (stem_set("meeting gathering assembly rendezvous"), _find_meeting_places),
    (stem_set("phones telephones"), _matches(find_phones)),
    (stem_set("emails"), _matches(readers.EMAIL.findall)),
    (stem_set("urls links websites"), _matches(readers.URL.findall)),
    (stem_set("dates deadlines"), _matches(readers.DATE.findall)),
    (stem_set("times"), _matches(readers.TIME.findall)),
    (stem_set("numbers figures amounts"), _matches(NUMBER.findall)),
    (stem_set("contacts people persons members attendees participants"), _find_people),
    (stem_set("places locations venues towns cities"), _find_places),
    (stem_set("alternatives options variants detours"), find_alternatives),
    (stem_set("cautions warnings hazards dangers risks"), find_cautions),
    (stem_set("steps directions instructions legs route"), find_steps),
    (stem_set("roads streets highways"), _matches(readers.find_roads)),
    (stem_set("checklist supplies supply items materials ingredients equipment quantity"), find_supplies),
    (stem_set("actions tasks todos measures recommendations duties"), _find_actions),
    (stem_set("headings sections chapters topics themes keywords tags outline"), _find_topics),
    (stem_set("names entities"), lambda facts: [_with_sentence(name, facts) for name in _find_names(facts)]),
    (
        stem_set("questions"),
        lambda facts: [{"text": each, "name": each} for each in facts.sentences if each.endswith("?")],
    ),
    (stem_set("points facts highlights sentences quotes findings summary"), _find_telling),
)
