"""Reads other things from prose: places, roads, distances, quantities, dates, needs, kinds of sentences."""

import re
from collections.abc import Iterable

from llm_service.llm.offline.text import WORD, capitalize, unique, word_set

MEETING = re.compile(
    r"\b(?:meet|meets|meeting|gather|gathers|gathering|assembl[ey]\w{0,4}|rendezvous|regroup)\b",
    re.IGNORECASE,
)
AT_PLACE = re.compile(
    r":|\b(?:at|is|by|near|under|behind|beside|outside|inside|in front of)\b", re.IGNORECASE
)
IN_PLACE = re.compile(r"\b(?:in|on)\b", re.IGNORECASE)
PLACE_END = re.compile(
    r"[,;!?(]|\.(?: |$)| (?:if|when|because|unless|after|before|should|since|then|but)\b", re.IGNORECASE
)
ARTICLE = re.compile(r"^(?:the|a|an|our|my) ", re.IGNORECASE)
PLACE = re.compile(r"\b(?:in|at|near|from|to|towards?|via|through)\s+(?:the\s+)?", re.IGNORECASE)

ROAD = re.compile(
    r"\b(?:[A-Z]{1,2}[- ]?\d{1,4}[A-Za-z]?|[IVX]{1,3}/\d{1,4}"
    r"|(?:Route|Highway|Motorway|Interstate|Autobahn|Road|Hwy)\.? \d{1,4})\b"
)
STREET = re.compile(r"\b(?:Street|Road|Avenue|Lane|Boulevard|Drive|Highway|Bridge|Tunnel|Parkway|Bypass)\b")
DISTANCE = re.compile(
    r"(?<![\w.,])(\d{1,5}(?:[.,]\d{1,3})?) ?(km|kilomet(?:er|re)s?|mi|miles?|m|met(?:er|re)s?)\b",
    re.IGNORECASE,
)
QUANTITY = re.compile(
    r"(?<![\w.,])\d{1,7}(?:[.,]\d{1,3})? ?(?:x\b|\u00d7|litres?|liters?|l\b|ml\b|kg\b|g\b|grams?"
    r"|cans?|bottles?"
    r"|boxes|box|packs?|packets?|pieces?|pcs|pairs?|sets?|rolls?|tablets?|bags?"
    r"|metres?|meters?|m\b|sheets?|days?)?",
    re.IGNORECASE,
)
DATE = re.compile(r"\b\d{4}-\d{2}-\d{2}\b")
TIME = re.compile(r"\b(?:[01]?\d|2[0-3]):[0-5]\d\b")
EMAIL = re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,4}")
URL = re.compile(r"https?://[^\s<>\"')\]]{1,500}")
NEED = re.compile(
    r"\b(?:needs?|requires?|takes?|uses?|depends? on|relies on)\s+(?:an?\s|the\s|his\s|her\s|their\s|some\s)?"
    r"([^.,;:!?()]{2,60})",
    re.IGNORECASE,
)
KINDS = {
    "caution": re.compile(
        r"\b(?:avoid|closed|closure|careful|caution|danger\w{0,3}|warn\w{0,3}|beware|risk\w?|ic[ey]|snow\w?|fog"
        r"|flood\w{0,3}|blocked|road ?works?|construction|do not"
        r"|don['\u2019]t|never"
        r"|slippery|steep|narrow|tolls?"
        r"|watch (?:out|for)|hazard\w?|unsafe|traffic|damaged|allerg\w{1,3})\b",
        re.IGNORECASE,
    ),
    "alternative": re.compile(
        r"\b(?:alternative\w{0,2}|instead|otherwise|or else|another (?:way|route|option)|could also|can also"
        r"|backup|back-up|plan b|fall ?back|in case .{1,60} closed"
        r"|if .{1,60} (?:closed|blocked|full|fails?))\b",
        re.IGNORECASE,
    ),
    "move": re.compile(
        r"\b(?:take|follow|turn|drive|continue|exit|head|keep|go|cross|merge|leave|join|stay|via|pass|stop"
        r"|fill up"
        r"|refuel|rest|change|start|arrive)\b",
        re.IGNORECASE,
    ),
    "duty": re.compile(
        r"\b(?:must|should|have to|has to|needs?|remember|make sure|do not|don['\u2019]t|please)\b",
        re.IGNORECASE,
    ),
    "question": re.compile(r"\?\s*$"),
}
IMPERATIVES = word_set(
    """
    add avoid bring buy call charge check clean close collect contact cover create decide do drink
    drive eat evacuate fill find follow get give go help hide inform install keep learn leave list
    listen lock make meet move open order pack plan prepare protect put read remove repair report
    rest save secure send set share shut start stay stop store switch take tell test turn unplug
    update use wait wash watch water write
    """
)


def find_meeting_places(sentences: Iterable[str]) -> list[tuple[str, str]]:
    """Return where people meet, as (place, sentence it stands in)."""
    found: dict[str, tuple[str, str]] = {}
    for sentence in sentences:
        cue = MEETING.search(sentence)
        for place in _cut_places(sentence[cue.end() :]) if cue else []:
            found.setdefault(place.casefold(), (place, sentence))
    return list(found.values())


def _cut_places(rest: str) -> list[str]:
    start = AT_PLACE.search(rest[:80]) or IN_PLACE.search(rest[:40])
    if start is None:
        return []
    phrase = rest[start.end() :].strip()
    second = AT_PLACE.match(phrase)  # "meeting point is at the library"
    phrase = phrase[second.end() :].strip() if second else phrase
    end = PLACE_END.search(phrase)
    parts = re.split(r" or (?:at |in |by )?", phrase[: end.start()] if end else phrase)
    places = [capitalize(ARTICLE.sub("", part.strip(" .").removeprefix("at "))) for part in parts]
    return [place for place in places if 2 < len(place) <= 120]


def find_places(text: str) -> list[str]:
    """Return names with a capital after a word of place: "in Brno", "near Main Street"."""
    return unique(
        [name for cue in PLACE.finditer(text) if (name := _read_name(text[cue.end() : cue.end() + 60]))]
    )


def _read_name(text: str) -> str:
    end = 0
    for word in WORD.finditer(text):
        if text[end : word.start()] not in ("", " ", "-") or not (
            word[0][0].isupper() or word[0][0].isdigit()
        ):
            break
        end = word.end()
    return text[:end] if end and text[0].isupper() else ""


def find_roads(text: str) -> list[str]:
    """Return road numbers, and streets by name."""
    numbered = [(m.start(), m[0]) for m in ROAD.finditer(text)]
    named = [(m.start(), name) for m in STREET.finditer(text) if (name := _street_name(text, m))]
    return unique([name for _, name in sorted(numbered + named)])


def _street_name(text: str, street: re.Match[str]) -> str:
    before = text[max(0, street.start() - 40) : street.start()].split(" ")[:-1]
    name: list[str] = []
    while before and before[-1][:1].isupper() and before[-1].isalpha() and len(name) < 3:
        name.insert(0, before.pop())
    kept = [word for word in name if word.casefold() not in IMPERATIVES and word.casefold() != "the"]
    return " ".join([*kept, street[0]]) if kept else ""


def find_distance_km(text: str) -> float | None:
    """Return the first distance, in kilometres."""
    found = DISTANCE.search(text)
    if found is None:
        return None
    unit = found[2].casefold()
    factor = 1.609344 if unit.startswith("mi") else 1.0 if unit.startswith("k") else 0.001
    return round(float(found[1].replace(",", ".")) * factor, 3)


def find_needs(sentence: str) -> list[str]:
    """Return what somebody needs, takes or uses: "needs insulin and a fridge" gives both."""
    found = [part for need in NEED.finditer(sentence) for part in re.split(r" and (?:an? |the )?", need[1])]
    return [capitalize(part.strip()) for part in found if part.strip()]


def is_imperative(sentence: str) -> bool:
    first = WORD.match(sentence)
    return bool(first) and first[0].casefold() in IMPERATIVES if first else False


def is_kind(kind: str, sentence: str) -> bool:
    return bool(KINDS[kind].search(sentence))
