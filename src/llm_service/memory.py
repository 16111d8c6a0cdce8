"""What a process does about its memory once it has started."""

import gc


def settle() -> None:
    """Let the collector pass over all that is there now: it stays for good.

    To walk through the modules again and again would hold up requests for tens of milliseconds each time.
    """
    gc.collect()
    gc.freeze()
