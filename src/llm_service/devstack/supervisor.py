"""Keeps child processes alive until it is told to stop, then leaves nothing running."""

import os
import select
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Self

from llm_service.devstack.children import Child, ChildSpec

POLL_S = 0.1


def supervise(
    children: Sequence[ChildSpec],
    *,
    keep: Sequence[Child] = (),
    on_line: Callable[[str], None] = print,
    on_ready: Callable[[], None] | None = None,
) -> int:
    """Start `children`, keep them and the already running `keep` alive, and stop all in reverse order.

    `on_ready` is called once, when everyone is ready for the first time. Returns 0 after SIGINT, SIGTERM or
    SIGHUP, else the exit code of the child whose end is the end of everything. A Ctrl-C while stopping kills
    what is left at once. Call it from the main thread, where signals arrive.
    """
    everyone = [*keep, *map(Child, children)]
    say = _keep_talking(on_line)
    with _Signals() as signals:
        try:
            for child in everyone[len(keep) :]:
                child.start()
            return _keep_alive(everyone, signals, say, on_ready)
        finally:
            if signals.stop_requested:
                say("Stopping. Ctrl-C kills at once.")
            _stop_all(everyone, signals)


def _keep_alive(
    everyone: Sequence[Child],
    signals: "_Signals",
    say: Callable[[str], None],
    on_ready: Callable[[], None] | None,
) -> int:
    while not signals.stop_requested:
        for child in everyone:
            exit_code = child.exit_code()
            if exit_code is not None and child.ends_everything(exit_code):
                say(f"{child.spec.name} ended ({_how(exit_code)}), so everything stops.")
                return exit_code if exit_code >= 0 else 128 - exit_code
            if exit_code is not None:
                _bury(child, _how(exit_code), say)
            elif child.is_due:
                _start_again(child, say)
        if on_ready and all(child.is_ready for child in everyone):
            on_ready()
            on_ready = None
        somebody_is_starting = on_ready or any(child.restart_at for child in everyone)
        signals.wait(POLL_S if somebody_is_starting else None)
    return 0


def _bury(child: Child, cause: str, say: Callable[[str], None]) -> None:
    """Clear away what a dead child left of its group, and say when it starts again."""
    child.kill_group()
    where = f" Its log: {child.spec.log}" if child.spec.log else ""
    say(f"{child.spec.name} ended ({cause}); starting it again in {child.plan_restart():g} s.{where}")


def _start_again(child: Child, say: Callable[[str], None]) -> None:
    try:
        child.start()
    except OSError as error:
        _bury(child, str(error), say)


def _stop_all(everyone: Sequence[Child], signals: "_Signals") -> None:
    try:
        for child in reversed(everyone):
            child.stop(lambda: signals.in_a_hurry)
    finally:
        for child in everyone:
            child.kill_group()


def _how(exit_code: int) -> str:
    if exit_code >= 0:
        return f"exit code {exit_code}"
    known = {number.value: number.name for number in signal.Signals}
    return f"killed by {known.get(-exit_code, -exit_code)}"


def _keep_talking(on_line: Callable[[str], None]) -> Callable[[str], None]:
    """Speak where possible: a terminal that is gone is no reason to leave children running."""

    def say(line: str) -> None:
        with suppress(OSError):
            on_line(line)

    return say


class _Signals:
    """Turns signals into wake-ups of the loop: a child ended, or somebody wants us to stop.

    Only a SIGINT counts as impatience: `make` passes a SIGTERM on to us that its whole group got anyway.
    """

    def __init__(self) -> None:
        self.stop_requested = False
        self.in_a_hurry = False

    def __enter__(self) -> Self:
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)
        self._old_writer = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        handled = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup asks us to survive the terminal
            handled.append(signal.SIGHUP)
        self._old = {number: signal.signal(number, self._on_stop) for number in handled}
        self._old[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, lambda *_: None)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._old_writer)
        os.close(self._reader)
        os.close(self._writer)

    def wait(self, seconds: float | None) -> None:
        """Wait for a signal, at most `seconds`."""
        select.select([self._reader], [], [], seconds)
        with suppress(BlockingIOError):
            os.read(self._reader, 512)

    def _on_stop(self, number: int, _: object) -> None:
        self.in_a_hurry |= self.stop_requested and number == signal.SIGINT
        self.stop_requested = True
