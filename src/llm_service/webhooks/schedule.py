"""When a delivery is tried again."""

import random

DELAYS_S = (5.0, 15.0, 45.0, 5 * 60.0, 30 * 60.0, 2 * 3600.0, 5 * 3600.0, 10 * 3600.0)
"""Before the second try, the third, ...: after the last of them the delivery is exhausted."""
MAX_RETRY_AFTER_S = 3600.0
GONE = 410


def next_delay_s(
    tries_made: int, retry_after_s: float | None = None, *, chance: random.Random
) -> float | None:
    """Seconds until the next try after `tries_made` tries; None when there is none to come.

    The receiver's Retry-After can lengthen a delay, never shorten it. Up to a fifth is added so that the
    deliveries of one outage do not all come back at one moment.
    """
    if tries_made > len(DELAYS_S):
        return None
    delay = DELAYS_S[tries_made - 1] * chance.uniform(1.0, 1.2)
    return max(delay, min(retry_after_s or 0.0, MAX_RETRY_AFTER_S))
