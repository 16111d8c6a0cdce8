"""Plain text for the offline model: sentences, stems, labels, and which sentences tell the most."""

import re
from collections import Counter

BREAK = re.compile(r"(?<=[.!?…。\uff01\uff1f])[ ]|\n")
SPACES = re.compile(r"[^\S\n]+")
WORD = re.compile(r"[^\W_]+(?:['\u2019][^\W_]+)*")
NUMBER = re.compile(r"(?<![\w.,:])[-+]?\d{1,15}(?:[.,]\d{1,6})?(?!\w|:\d)")


def word_set(text: str) -> frozenset[str]:
    return frozenset(text.split())


ABBREVIATIONS = word_set(
    "dr mr mrs ms prof st no nr tel ing mudr mgr e.g i.e etc approx ca vs jr sr ave rd ph fr phone ext"
)
STOP_WORDS = word_set(
    """
    a about above after again all also am an and any are as at be because been before being below
    between both but by call can could did do does doing down during each either few for from
    further had has have having he her here hers him his how i if in into is it its just let lets
    live lives make may me meet might more most must my near need needs no nor not now number of off
    on once only or other our out over own per please put ring same she should since so some such
    take tell than that the their them then there these they this those through to too under until
    up us use very was we were what when where which while who whom why will with would you your
    yours
    """
)


def clean(text: str) -> str:
    """Return `text` with plain spaces, no control characters and no lone surrogates."""
    printable = text.encode("utf-8", "replace").decode().replace("\r", "\n")
    return SPACES.sub(" ", "".join(c if c == "\n" or c.isprintable() else " " for c in printable)).strip()


def split_sentences(text: str) -> list[str]:
    """Split at ends of sentences and of lines; an abbreviation or an initial ends nothing."""
    sentences: list[str] = []
    held: list[str] = []
    for part in BREAK.split(text):
        held.append(part.strip(" \t-*•"))
        if not _ends_in_abbreviation(part):
            sentences.append(" ".join(filter(None, held)))
            held = []
    sentences.append(" ".join(filter(None, held)))
    return [sentence for sentence in sentences if any(c.isalnum() for c in sentence)]


def _ends_in_abbreviation(part: str) -> bool:
    last = part[-12:].rpartition(" ")[2].lstrip("(")
    if not last.endswith("."):
        return False
    word = last[:-1]
    return word.casefold() in ABBREVIATIONS or (len(word) == 1 and word.isupper())


def words_of(text: str) -> list[str]:
    return WORD.findall(text)


def stem(word: str) -> str:
    """Fold case and the commonest endings, so that `Roads` meets `road` and `flooding` meets `flood`."""
    folded = word.casefold()
    if folded.endswith("ies"):
        return folded[:-3] + "y" if len(folded) > 4 else folded
    for ending in ("s", "ing", "ed", "e"):
        if folded.endswith(ending) and not folded.endswith("ss") and len(folded) - len(ending) >= 3:
            folded = folded.removesuffix(ending)
    return folded


def stem_set(text: str) -> frozenset[str]:
    """Return the stems of every word."""
    return frozenset(stem(word) for word in words_of(text))


def stems(text: str) -> frozenset[str]:
    """Return the stems of the words that carry meaning."""
    return frozenset(stem(word) for word in words_of(text) if word.casefold() not in STOP_WORDS)


def label(key: str) -> str:
    """`family_size` and `familySize` read "Family size"."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", key).replace("_", " ").replace("-", " ")
    return capitalize(" ".join(spaced.split()).lower())


def capitalize(text: str) -> str:
    return text[:1].upper() + text[1:]


def finish(text: str) -> str:
    """Make a clause a sentence."""
    ended = capitalize(text.strip(" ,;:-"))
    return ended if not ended or ended[-1] in ".!?…" else f"{ended}."


def clip(text: str, most: int | None) -> str:
    """Cut at a word's end, with an ellipsis, to at most `most` characters."""
    if most is None or len(text) <= most:
        return text
    if most < 8:
        return text[:most]
    head = text[: most - 1]
    return (head.rpartition(" ")[0] or head).rstrip(" ,;:-") + "…"


def unique(texts: list[str]) -> list[str]:
    """Drop repeats, whatever their case, in order."""
    seen: dict[str, str] = {}
    for text in texts:
        seen.setdefault(text.casefold(), text)
    return list(seen.values())


def pick_telling(sentences: list[str], most: int, about: frozenset[str] = frozenset()) -> list[str]:
    """Choose the sentences with the most figures, names and recurring words, in their own order.

    Words in `about` weigh most.
    """
    counts = Counter(word for sentence in sentences for word in stems(sentence))
    ranked = sorted(
        range(len(sentences)), key=lambda place: (-_weigh(sentences[place], counts, about), place)
    )
    return [sentences[place] for place in sorted(ranked[:most])]


def _weigh(sentence: str, counts: Counter[str], about: frozenset[str]) -> float:
    found = stems(sentence)
    if not found:
        return 0.0
    recurring = sum(counts[word] - 1 for word in found) / len(found)
    figures = len(NUMBER.findall(sentence))
    names = sum(1 for word in words_of(sentence)[1:] if word[0].isupper())
    length = min(len(found), 12) / 4
    return recurring + 1.5 * min(figures, 3) + 0.5 * min(names, 4) + length + 5 * len(found & about)
