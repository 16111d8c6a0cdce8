"""The roles people and services play for a household, and where a text speaks of them."""

from itertools import product

from llm_service.llm.offline.text import WORD, words_of

KIN = "mother father mom mum dad ma pa son daughter parents child sister brother"
ROLES = """
    wife, husband, partner, spouse, fiance, fianc\u00e9, fianc\u00e9e, girlfriend, boyfriend, aunt,
    auntie, uncle, cousin, niece, nephew, neighbour, neighbours, neighbor, neighbors, best friend,
    family friend, friend, colleague, co-worker, boss, manager, teacher, headteacher, coach, babysitter,
    nanny, carer, caregiver, caretaker, landlord, landlady, housemate, roommate, family doctor, doctor,
    GP, general practitioner, pediatrician, paediatrician, dentist, nurse, midwife, pharmacist,
    pharmacy, hospital, clinic, vet, veterinarian, lawyer, priest, pastor, mayor, plumber, electrician,
    mechanic, locksmith, insurer, insurance, police, police station, sheriff, fire brigade, fire
    department, fire station, fire service, firefighters, ambulance, rescue, rescue service, mountain
    rescue, coast guard, coastguard, civil protection, poison control, poison center, poison centre,
    poison line, emergency service, emergency services, emergency number, emergency line, emergency
    room, red cross, school, kindergarten, nursery, town hall, city hall, municipality, embassy,
    hotline, helpline, taxi, tow truck, employer, secretary, warden
"""


def _list_phrases() -> dict[str, list[tuple[str, ...]]]:
    """Every role as a tuple of words, by its first word, the longest first."""
    kin = [
        f"{before}{each}"
        for before, each in product(("", "grand", "step", "god", "great-grand"), KIN.split())
    ]
    utilities = product(("gas", "power", "electricity", "water", "utility"), ("company", "supplier", "line"))
    phrases = [*kin, *(f"{each}-in-law" for each in kin), *map(" ".join, utilities), *ROLES.split(",")]
    by_first: dict[str, list[tuple[str, ...]]] = {}
    for words in sorted((tuple(words_of(each.casefold())) for each in phrases), key=len, reverse=True):
        by_first.setdefault(words[0], []).append(words)
    return by_first


PHRASES = _list_phrases()


def find_roles(text: str) -> list[tuple[int, int]]:
    """Return where roles stand, as (start, end), the longest phrase at each place."""
    words = [(match[0].casefold(), match.start(), match.end()) for match in WORD.finditer(text)]
    found: list[tuple[int, int]] = []
    for place, (first, start, _) in enumerate(words):
        for phrase in PHRASES.get(first, []):
            ahead = words[place : place + len(phrase)]
            if tuple(word for word, _, _ in ahead) == phrase and (not found or start >= found[-1][1]):
                found.append((start, ahead[-1][2]))
                break
    return found
