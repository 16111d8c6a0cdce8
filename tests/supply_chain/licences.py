"""Lists the licence of everything in requirements.txt, as the installed packages state it."""

import re
import sys
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path

LOCK = Path(__file__).parents[2] / "requirements.txt"


def locked(lock: Path = LOCK) -> dict[str, str]:
    """Versions by name."""
    return dict(re.findall(r"^([A-Za-z0-9._-]+)==(\S+)", lock.read_text(encoding="utf-8"), re.MULTILINE))


def licence_of(name: str) -> str:
    try:
        stated = metadata(name)
    except PackageNotFoundError:
        return "not installed on this platform"

    def said(field: str) -> list[str]:
        return stated.get_all(field) or []

    classified = [text.rpartition(" :: ")[2] for text in said("Classifier") if text.startswith("License ::")]
    whole = [text.strip().splitlines()[0] for text in said("License") if text.strip()]
    return "; ".join(said("License-Expression") or classified or whole) or "not stated"


if __name__ == "__main__":
    for name, version in sorted(locked().items()):
        sys.stdout.write(f"{name} {version}: {licence_of(name)}\n")
