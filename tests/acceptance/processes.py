"""The service's own processes, started as an operator starts them."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent


def bare_environment(**extra: str) -> dict[str, str]:
    """PATH and HOME, as in an empty shell, and what a test adds."""
    return {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), **extra}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Process:
    """A child in a session of its own, its output in a file. Leaving the context kills its whole group."""

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], log: Path, cwd: Path = ROOT
    ) -> None:
        self.log = log
        with log.open("ab") as output:
            self._child = subprocess.Popen(
                [str(BIN / command[0]), *command[1:]],
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=cwd,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._child.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._child.poll() is None:
            os.killpg(self._child.pid, signal.SIGKILL)
            self._child.wait()

    def send(self, number: signal.Signals) -> None:
        self._child.send_signal(number)

    def wait(self, within_s: float = 30.0) -> int:
        return self._child.wait(within_s)

    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def wait_for_output(self, text: str, within_s: float = 40.0) -> str:
        deadline = time.monotonic() + within_s
        while text not in (seen := self.output()):
            assert self._child.poll() is None, f"ended with {self._child.returncode}:\n{seen[-3000:]}"
            assert time.monotonic() < deadline, f"{text!r} did not come within {within_s} s:\n{seen[-3000:]}"
            time.sleep(0.05)
        return seen


def wait_until_healthy(port: int, within_s: float = 30.0, status: str = "healthy") -> None:
    deadline = time.monotonic() + within_s
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2) as answer:
                if answer.status == 200 and f'"{status}"'.encode() in answer.read():
                    return
        except OSError:
            pass
        assert time.monotonic() < deadline, "the service did not become healthy"
        time.sleep(0.05)


def descendants(pid: int) -> set[int]:
    """The process and everything below it, as /proc has it now."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            parents[int(entry.name)] = int(fields[1])
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def wait_until_gone(pids: set[int], within_s: float = 10.0) -> None:
    deadline = time.monotonic() + within_s
    while left := {pid for pid in pids if _is_alive(pid)}:
        assert time.monotonic() < deadline, f"still running: {[command_of(pid) for pid in left]}"
        time.sleep(0.05)


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
    except OSError:
        return str(pid)
