"""Answers in plain text: the sentences that tell most, then the figures and names in them; never an echo."""

import re

from llm_service.llm.offline.facts import Facts
from llm_service.llm.offline.people import find_people, find_phones
from llm_service.llm.offline.readers import find_places, is_imperative
from llm_service.llm.offline.text import (
    NUMBER,
    STOP_WORDS,
    clip,
    finish,
    pick_telling,
    split_sentences,
    stems,
    unique,
    words_of,
)

MOST_SENTENCES = 3
MOST_NAMED = 8
INSTRUCTION = re.compile(
    r"(?:please |can you |could you )?(?:summari[sz]e|list|explain|describe|extract|write|give|tell|rewrite"
    r"|shorten|translate|name|find|what|which|who|how|when|where|why)\b",
    re.IGNORECASE,
)
COUNTS = {"one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8}
WANTED = re.compile(
    r"\b(\d|one|two|three|four|five|six|seven|eight) (?:short )?(?:sentence|point|bullet)", re.IGNORECASE
)


def answer_in_prose(facts: Facts) -> str:
    """Return a short extract of what was sent, about what it asks; a bare question is named as such."""
    instruction, material = _divide(facts)
    if not material:
        return _decline(instruction)
    most = _count_wanted(instruction)
    chosen = pick_telling(material, most, stems(instruction))
    extract = [clip(finish(sentence), 300) for sentence in chosen]
    separator = (
        "\n" if len(chosen) > 1 and re.search(r"\b(?:list|bullet|point)", instruction, re.IGNORECASE) else " "
    )
    told = separator.join(f"- {each}" if separator == "\n" else each for each in extract)
    return "\n\n".join(filter(None, [told, _name_particulars("\n".join(material))]))


def _divide(facts: Facts) -> tuple[str, list[str]]:
    """Tell what is asked from the text it is asked about."""
    if facts.named:
        return (facts.focus.value if facts.focus else ""), unique([*facts.statements, *facts.sentences])
    asked: list[str] = []
    material: list[str] = []
    for sentence in unique(split_sentences("\n".join(facts.texts))):
        head, colon, rest = sentence.partition(": ")
        if INSTRUCTION.match(sentence) and colon and len(head) < 200:
            asked.append(head)
            material.append(rest)
        elif sentence.endswith("?") or INSTRUCTION.match(sentence):
            asked.append(sentence.rstrip(":"))
        else:
            material.append(sentence)
    return " ".join(asked), material


def _decline(instruction: str) -> str:
    words = unique([word for word in words_of(instruction) if word.casefold() not in STOP_WORDS])
    topics = [word for word in words if not is_imperative(word) and not INSTRUCTION.fullmatch(word)]
    about = f" The prompt is about: {', '.join(topics[:MOST_NAMED])}." if topics else ""
    return (
        "The offline model only works on the text it is given; this prompt holds a question and no text."
        + about
    )


def _count_wanted(instruction: str) -> int:
    found = WANTED.search(instruction)
    if found is None:
        return MOST_SENTENCES
    word = found[1].casefold()
    return COUNTS[word] if word in COUNTS else max(1, int(word))


def _name_particulars(text: str) -> str:
    phones = find_phones(text)
    spelled = text
    for phone in phones:
        spelled = spelled.replace(phone, " ")
    lines = {
        "Names": unique([*[person.name for person in find_people(text)], *find_places(text)]),
        "Numbers": unique(NUMBER.findall(spelled)),
        "Phones": unique(phones),
    }
    return "\n".join(f"{title}: {', '.join(found[:MOST_NAMED])}" for title, found in lines.items() if found)
