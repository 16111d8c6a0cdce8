"""How values are said on the pages: times, durations, money, counts, and text that somebody else wrote."""

import unicodedata
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgspec

DASH = "\N{EN DASH}"
EXCERPT = 80
STALE_AFTER_S = 5.0
"""A lease may be a little past its end before the reconciler has come by."""


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One job as a line of the table. Holds nothing that changes by the passing of time alone."""

    id: str
    status: str
    word: str
    note: str | None
    attempt: int
    max_attempts: int
    action: str | None
    workflow: str
    user: str | None
    user_id: str | None
    priority: int
    created_at: datetime
    started_at: datetime | None
    completed_at: datetime | None
    wait_ms: int | None
    duration_ms: int | None
    error_code: str | None
    error: str | None
    webhook: str
    tokens: int | None
    cost: str | None


def row_of(job: Any, now: datetime) -> Row:
    return Row(
        id=str(job.id),
        status=job.status,
        word=status_word(job, now),
        note=f"at {job.run_after:%H:%M:%S}" if _waits_for_retry(job, now) else None,
        attempt=job.attempt,
        max_attempts=job.max_attempts,
        action=job.action,
        workflow=job.workflow_name,
        user=job.username,
        user_id=None if job.user_id is None else str(job.user_id),
        priority=job.priority,
        created_at=job.created_at,
        started_at=job.started_at,
        completed_at=job.completed_at,
        wait_ms=between_ms(job.created_at, job.started_at),
        duration_ms=job.duration_ms,
        error_code=job.error_code,
        error=excerpt(job.error_message, EXCERPT),
        webhook=job.webhook_state,
        tokens=job.total_tokens,
        cost=money(job.cost_usd),
    )


WORDS = {
    "pending": "Pending",
    "processing": "Running",
    "completed": "Completed",
    "failed": "Failed",
    "cancelled": "Cancelled",
}


def status_word(job: Any, now: datetime) -> str:
    """The state in a word; two are derived: a retry that waits, and a running job nobody has a lease on."""
    if _waits_for_retry(job, now):
        return "Retrying"
    stalled = job.status == "processing" and job.lease_expires_at is not None
    if stalled and (now - job.lease_expires_at).total_seconds() > STALE_AFTER_S:
        return "Stalled"
    return WORDS[job.status]


def _waits_for_retry(job: Any, now: datetime) -> bool:
    return bool(job.status == "pending" and job.attempt > 0 and job.run_after > now)


def between_ms(start: datetime | None, end: datetime | None) -> int | None:
    return None if start is None or end is None else round((end - start).total_seconds() * 1000)


def excerpt(text: str | None, most: int) -> str | None:
    if text is None:
        return None
    line = " ".join(text[: most * 4].split())
    return line if len(line) <= most else line[: most - 1] + "…"


# --- filters of the templates -----------------------------------------------------------------------------


def exact(moment: datetime | None) -> str:
    return DASH if moment is None else f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def clock(moment: datetime | None) -> str:
    return DASH if moment is None else f"{moment.astimezone(UTC):%H:%M:%S}"


def iso(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def ago(moment: datetime | None, now: datetime) -> str:
    """How long before `now`, in one unit; `in 5 min` for what is to come."""
    if moment is None:
        return DASH
    seconds = (now - moment).total_seconds()
    words = _one_unit(abs(seconds))
    if words is None:
        return "just now" if seconds >= 0 else "in a moment"
    return f"{words} ago" if seconds >= 0 else f"in {words}"


def _one_unit(seconds: float) -> str | None:
    if seconds < 5:
        return None
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")):
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return None


def span(ms: float | None) -> str:
    """`820 ms`, `8.2 s`, `3 m 12 s`, `1 h 04 m`, `2 d 3 h`."""
    if ms is None:
        return DASH
    if ms < 1000:
        return f"{max(0, round(ms))} ms"
    seconds = ms / 1000
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} m {whole % 60:02d} s"
    if whole < 86_400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} m"
    return f"{whole // 86_400} d {whole % 86_400 // 3600} h"


def grouped(number: int | None) -> str:
    return DASH if number is None else f"{number:,}"


def counted(number: int | None, *, capped: bool = False) -> str:
    return f"{grouped(number)}+" if capped else grouped(number)


def tokens(number: int | None) -> str:
    """`812`, `1.2k`, `3.4M`; a dash for unknown, which is not 0."""
    if number is None:
        return DASH
    if number < 1000:
        return str(number)
    return f"{number / 1000:.1f}k" if number < 999_950 else f"{number / 1_000_000:.1f}M"


def money(amount: Decimal | float | None) -> str | None:
    """Dollars with what digits matter; None for unknown."""
    if amount is None:
        return None
    if 0 < amount < Decimal("0.0001"):
        return "<$0.0001"
    return f"${amount:,.2f}" if amount >= 1 else f"${amount:.4f}"


def size(octets: int | None) -> str:
    if octets is None:
        return DASH
    if octets < 1024:
        return f"{octets} B"
    return f"{octets / 1024:.1f} KB" if octets < 1024 * 1024 else f"{octets / 1024 / 1024:.1f} MB"


def short(identifier: str | None) -> str:
    """The end of an id: the beginning of ours is a time that many share."""
    return DASH if not identifier else f"…{identifier[-8:]}"


_KEPT = {"\u200d", "\ufe0f"}  # what joins and colours emoji
_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


def visible(text: object, *, lines: bool = False) -> str:
    """Text with every character that would not be seen, or would move others, as its escape.

    With `lines`, line breaks and tabs stay what they are.
    """
    plain = str(text)
    if plain.isascii() and plain.isprintable():
        return plain
    return "".join(_shown(letter, lines=lines) for letter in plain)


def _shown(letter: str, *, lines: bool) -> str:
    if (lines and letter in "\n\t") or letter in _KEPT:
        return letter
    if letter.isprintable() or letter == "\u00a0" or unicodedata.category(letter) not in _HIDDEN:
        return letter
    point = ord(letter)
    return f"\\x{point:02x}" if point < 0x100 else f"\\u{point:04x}" if point < 0x10000 else f"\\U{point:08x}"


FILTERS = {
    function.__name__: function
    for function in (
        exact,
        clock,
        iso,
        ago,
        span,
        grouped,
        counted,
        tokens,
        money,
        size,
        short,
        visible,
        excerpt,
    )
}
