"""The workflow `emergency_contacts`: whom to call and where to meet, for one household."""

from typing import Annotated

import msgspec

from llm_service.workflows.base import Context, Workflow
from llm_service.workflows.prompts import read_prompt

SHORT_NUMBER = 4
"""Digits of the longest emergency number (112, 911, 1122); anything longer must stand in the input."""


class ContactsRequest(msgspec.Struct, frozen=True, kw_only=True):
    location: Annotated[
        str,
        msgspec.Meta(
            description="Where the household lives.",
            min_length=1,
            max_length=500,
            examples=["Brno, Czech Republic"],
        ),
    ]
    scenarios: Annotated[
        list[Annotated[str, msgspec.Meta(min_length=1, max_length=500)]],
        msgspec.Meta(
            description="What to be ready for.", max_length=20, examples=[["flood", "power outage"]]
        ),
    ] = []
    notes: Annotated[
        Annotated[str, msgspec.Meta(max_length=20_000)] | None,
        msgspec.Meta(
            description="Anything known about people, numbers and places, in free text.",
            examples=["Our neighbour Eva has a car: 0123 456 789. We meet at the chapel on the hill."],
        ),
    ] = None


class Contact(msgspec.Struct, frozen=True, kw_only=True):
    name: Annotated[str, msgspec.Meta(description="The person or service to call.")]
    role: Annotated[
        str | None,
        msgspec.Meta(
            description="Who they are to the household: sister, doctor, fire brigade. Null when unknown."
        ),
    ]
    phone: Annotated[
        str | None,
        msgspec.Meta(
            description="The phone number exactly as given; null when it is not known. Never invented."
        ),
    ]
    reason: Annotated[str, msgspec.Meta(description="When and why to call them, in one sentence.")]


class MeetingPlace(msgspec.Struct, frozen=True, kw_only=True):
    name: Annotated[str, msgspec.Meta(description="The place where the household meets.")]
    reason: Annotated[str, msgspec.Meta(description="Why this place, in one sentence.")]


class ContactsResponse(msgspec.Struct, frozen=True, kw_only=True):
    contacts: Annotated[
        list[Contact],
        msgspec.Meta(description="People and services to call, most urgent first.", max_length=50),
    ]
    meeting_places: Annotated[
        list[MeetingPlace],
        msgspec.Meta(description="Where to meet when home is out of reach.", max_length=20),
    ]


async def list_contacts(request: ContactsRequest, context: Context) -> ContactsResponse:
    answer = await context.fill(
        "contacts",
        system=read_prompt("emergency_contacts"),
        user=msgspec.json.encode(request).decode(),
        into=ContactsResponse,
    )
    return drop_invented_phones(answer, request)


def drop_invented_phones(answer: ContactsResponse, request: ContactsRequest) -> ContactsResponse:
    """Keep a number only when its digits stand in the input, or when it is a short emergency number."""
    given = _digits(" ".join((request.location, *request.scenarios, request.notes or "")))
    kept = [
        contact if _is_known(contact.phone, given) else msgspec.structs.replace(contact, phone=None)
        for contact in answer.contacts
    ]
    return msgspec.structs.replace(answer, contacts=kept)


def _is_known(phone: str | None, given: str) -> bool:
    digits = _digits(phone or "")
    return bool(digits) and (len(digits) <= SHORT_NUMBER or digits in given)


def _digits(text: str) -> str:
    return "".join(character for character in text if character in "0123456789")


WORKFLOW = Workflow(
    name="emergency_contacts",
    description="Lists whom to call in an emergency and where to meet, from what is known about a household.",
    version="1.0.0",
    input_type=ContactsRequest,
    output_type=ContactsResponse,
    run=list_contacts,
    calls=lambda _request: 1,
)
