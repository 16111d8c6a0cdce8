"""One child process: how it is started, told to stop, and made to die with its parent."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from llm_service.devstack.accounts import Account

FIRST_DELAY_S, LONGEST_DELAY_S = 0.5, 10.0
SETTLED_AFTER_S = 30.0  # a child that lived this long starts again with the first delay
KILL_WAIT_S = 5.0
LOG_LIMIT_BYTES = 10_000_000
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, kw_only=True)
class ChildSpec:
    """What to run, when it counts as ready, and how it is brought down.

    `env` None inherits ours; `log` None lets it write to our own stdout and stderr. `ready` is asked about
    ten times a second and must answer at once. With `restart` False, or after one of `fatal_exit_codes`
    (settings that are wrong stay wrong), the child's end is the end of everything. `kill_signal` is what an
    impatient stop sends first: PostgreSQL has a gentler one than SIGKILL. `parent_death_signal` is sent by
    Linux when the *thread* that started the child ends, so start children from the main thread; None
    leaves it out.
    """

    name: str
    argv: Sequence[str]
    env: Mapping[str, str] | None = None
    cwd: Path | None = None
    ready: Callable[[], bool] | None = None
    restart: bool = True
    fatal_exit_codes: Collection[int] = ()
    grace_s: float = 30.0
    stop_signal: signal.Signals = signal.SIGTERM
    kill_signal: signal.Signals = signal.SIGKILL
    parent_death_signal: signal.Signals | None = signal.SIGTERM
    account: Account | None = None
    log: Path | None = None
    before_start: Callable[[], None] | None = None


class Child:
    """A `ChildSpec` across its restarts, in a session of its own: a terminal's Ctrl-C passes it by."""

    def __init__(self, spec: ChildSpec) -> None:
        self.spec = spec
        self.process: subprocess.Popen[bytes] | None = None
        self.restart_at: float | None = None
        self._delay_s = FIRST_DELAY_S
        self._started_at = 0.0

    @property
    def pid(self) -> int | None:
        return self.process.pid if self.process else None

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def is_ready(self) -> bool:
        return self.is_running and (self.spec.ready is None or self.spec.ready())

    @property
    def is_due(self) -> bool:
        return self.restart_at is not None and time.monotonic() >= self.restart_at

    def exit_code(self) -> int | None:
        """Tell how it ended, until `kill_group` has cleared it away; None while it runs or waits."""
        return self.process.poll() if self.process else None

    def ends_everything(self, exit_code: int) -> bool:
        return not self.spec.restart or exit_code in self.spec.fatal_exit_codes

    def start(self) -> None:
        """Start it, after clearing away what an earlier life left of its group."""
        spec = self.spec
        self.kill_group()
        if spec.before_start:
            spec.before_start()
        with open_log(spec.log) if spec.log else nullcontext() as output:
            self.process = subprocess.Popen(
                spec.argv,
                env=spec.env,
                cwd=spec.cwd,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                preexec_fn=die_with_parent(spec.parent_death_signal),  # noqa: PLW1509 -- it calls prctl only
                **(spec.account.spawn_as() if spec.account else {}),
            )
        self._started_at = time.monotonic()
        self.restart_at = None

    def plan_restart(self) -> float:
        """Set the time of the next start and return the seconds until then: 0.5, doubling up to 10."""
        now = time.monotonic()
        if now - self._started_at > SETTLED_AFTER_S:
            self._delay_s = FIRST_DELAY_S
        delay_s, self._delay_s = self._delay_s, min(self._delay_s * 2, LONGEST_DELAY_S)
        self.restart_at = now + delay_s
        return delay_s

    def stop(self, in_a_hurry: Callable[[], bool] = lambda: False) -> None:
        """Ask it to stop; kill what is left of its group after the grace, or when there is a hurry."""
        self.restart_at = None
        try:
            if not in_a_hurry():
                self._send(self.spec.stop_signal)
                self._wait(self.spec.grace_s, in_a_hurry)
            self._send(self.spec.kill_signal)
            self._wait(KILL_WAIT_S)
        finally:
            self.kill_group()

    def kill_group(self) -> None:
        """SIGKILL for whatever is left: the child, and what it started and left behind."""
        if self.process is None:
            return
        with suppress(ProcessLookupError, PermissionError):  # macOS says EPERM of a group of zombies
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.process = None  # from here on its pid may belong to another

    def _send(self, number: signal.Signals) -> None:
        if self.process is not None:
            self.process.send_signal(number)

    def _wait(self, seconds: float, in_a_hurry: Callable[[], bool] = lambda: False) -> None:
        deadline = time.monotonic() + seconds
        while self.process is not None and time.monotonic() < deadline and not in_a_hurry():
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(0.1)
                return


def open_log(path: Path) -> BinaryIO:
    """Open a log for appending; one that has grown past its limit begins again."""
    too_long = path.exists() and path.stat().st_size > LOG_LIMIT_BYTES
    return path.open("wb" if too_long else "ab")


def die_with_parent(number: signal.Signals | None) -> Callable[[], None] | None:
    """Make the function a new child calls just before exec, on Linux; nothing to call elsewhere.

    It runs after the account has changed, because a change of account clears the setting. A parent that died
    in the meantime would go unnoticed, so the child looks once.
    """
    if number is None or sys.platform != "linux":
        return None
    prctl, parent = ctypes.CDLL(None).prctl, os.getpid()

    def ask_for_it() -> None:
        prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    return ask_for_it
