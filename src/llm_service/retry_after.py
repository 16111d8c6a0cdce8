"""Reads `Retry-After`: seconds, or an HTTP date."""

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime


def retry_after_s(header: str | None, *, cap_s: float) -> float | None:
    """Seconds to wait, 0 to `cap_s`; None where the header says nothing usable."""
    if not header:
        return None
    text = header.strip()
    if text.isascii() and text.replace(".", "", 1).isdigit() and len(text) < 16:
        return min(float(text), cap_s)
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return min(max((moment - datetime.now(UTC)).total_seconds(), 0.0), cap_s)
