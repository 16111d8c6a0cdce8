"""Named points at which a test build can be made to fail; in every other process they do nothing.

    LLM_SERVICE_FAILPOINTS=run.after-claim=exit#1,submit.before-commit=raise@0.2,no-reconciler

A point is `name=action`, then perhaps `@probability` and `#times`; the times are counted over all processes that
share LLM_SERVICE_FAILPOINTS_LOG, restarts included. Each firing is a line of that file, so that a test can prove
that the fault it injected did happen. The switches `no-fence` and `no-reconciler` take a protection away: a
chaos run that passes without it proves nothing.

These variables are read when this module is imported, not handed in: a point that is not armed is an empty
function from the start.
"""

import asyncio
import os
import random
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Final

import msgspec

from llm_service.errors import ServiceUnavailable, SettingsInvalid

POINTS: Final = frozenset(
    {
        "submit.before-commit",
        "submit.after-commit-before-enqueue",
        "run.after-claim",
        "run.after-model-answer-before-ledger",
        "run.after-ledger-before-next-step",
        "run.before-finish",
        "run.after-finish-before-wake",
        "report.after-post-before-settle",
        "release.before-write",
        "rescue.after-reap-before-wake",
    }
)
SWITCHES: Final = frozenset({"no-fence", "no-reconciler"})
ACTIONS: Final = ("exit", "raise", "hang", "block")
VARIABLE: Final = "LLM_SERVICE_FAILPOINTS"
EXIT_CODE: Final = 137
"""That of a process killed with SIGKILL: nothing is cleaned up either."""

_SPEC = re.compile(
    r"(?P<name>[a-z.-]+)=(?P<action>[a-z]+)(:(?P<seconds>[0-9.]+))?(@(?P<chance>[0-9.]+))?(#(?P<times>[0-9]+))?"
)


class Failpoint(msgspec.Struct, frozen=True):
    """Where and how to fail: what each action does stands in `Failpoints.hit`."""

    name: str
    action: str
    seconds: float = 0.0
    chance: float = 1.0
    times: int | None = None


class Failpoints:
    """Those of one process."""

    def __init__(self, points: Mapping[str, Failpoint], switches: frozenset[str], log: Path | None) -> None:
        self.switches = switches
        self._points = points
        self._log = log

    async def hit(self, name: str) -> None:
        """Fail here, if this point is armed and its turn has come.

        `exit` ends the process as a kill would, `raise` says that the database is away, `hang` never comes back,
        `block` stops the event loop for so many seconds, as on a frozen machine.
        """
        point = self._points.get(name)
        if point is None or random.random() >= point.chance or not self._takes_turn(point):  # noqa: S311 - no secret
            return
        self._note(point)
        match point.action:
            case "exit":
                os._exit(EXIT_CODE)
            case "raise":
                raise ServiceUnavailable
            case "hang":
                await asyncio.Event().wait()
            case _:
                time.sleep(point.seconds)  # noqa: ASYNC251 - a blocked event loop is the fault

    def _takes_turn(self, point: Failpoint) -> bool:
        """Whether one of the point's times was left; each is a file that only one process can make."""
        if point.times is None or self._log is None:
            return True
        for turn in range(point.times):
            try:
                self._log.with_name(f"{self._log.name}.{point.name}.{turn}").touch(exist_ok=False)
            except FileExistsError:
                continue
            return True
        return False

    def _note(self, point: Failpoint) -> None:
        if self._log is not None:
            with self._log.open("a") as file:
                file.write(f"{point.name} {point.action} {os.getpid()} {time.time():.3f}\n")


def read(environ: Mapping[str, str]) -> Failpoints | None:
    """The points that the environment arms, None where it names none. Raises `SettingsInvalid` for an unknown one."""
    entries = [entry.strip() for entry in environ.get(VARIABLE, "").split(",") if entry.strip()]
    if not entries:
        return None
    points = [_parse(entry) for entry in entries if entry not in SWITCHES]
    log = environ.get(f"{VARIABLE}_LOG")
    if log is None and any(point.times is not None for point in points):
        raise SettingsInvalid(f"{VARIABLE}: #times needs {VARIABLE}_LOG.")
    return Failpoints(
        {point.name: point for point in points},
        SWITCHES.intersection(entries),
        Path(log) if log is not None else None,
    )


def _parse(entry: str) -> Failpoint:
    found = _SPEC.fullmatch(entry)
    if found is None or found["name"] not in POINTS or found["action"] not in ACTIONS:
        raise SettingsInvalid(
            f"{VARIABLE}: {entry[:100]!r} is no fault. Names: {', '.join(sorted(POINTS | SWITCHES))};"
            f" actions: {', '.join(ACTIONS)}."
        )
    return Failpoint(
        found["name"],
        found["action"],
        seconds=float(found["seconds"] or 0),
        chance=float(found["chance"] or 1),
        times=int(found["times"]) if found["times"] else None,
    )


async def _nothing(name: str) -> None: ...


def fence(guard: str) -> str:
    """The condition under which a holder's write counts; always true where a test has taken the fence away."""
    return f"({guard} OR true)" if "no-fence" in _switches else guard


def is_off(protection: str) -> bool:
    """Whether a test has taken a protection away."""
    return f"no-{protection}" in _switches


_armed = read(os.environ)
_switches = _armed.switches if _armed is not None else frozenset[str]()
hit: Callable[[str], Awaitable[None]] = _armed.hit if _armed is not None else _nothing
