"""Processes of the benchmark: started, counted (CPU, memory) with all their children, stopped by their id."""

import os
import re
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

TICKS = os.sysconf("SC_CLK_TCK")
ROOT = Path(__file__).parents[2]
KEPT = ("PATH", "HOME", "LANG", "TMPDIR", "LD_LIBRARY_PATH")


class Process:
    """A program with an environment of its own; leaving the context stops it."""

    def __init__(
        self,
        argv: Sequence[str],
        env: Mapping[str, str],
        log: Path,
        *,
        cwd: Path = ROOT,
        port: int | None = None,
    ) -> None:
        self.log = log
        ours = {name: os.environ[name] for name in KEPT if name in os.environ}
        with log.open("ab") as output:
            self._child = subprocess.Popen(
                argv, env={**ours, **env}, cwd=cwd, stdout=output, stderr=output, stdin=subprocess.DEVNULL
            )
        if port is not None:
            self._wait_for(port)

    def _wait_for(self, port: int) -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            self.check()
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return
            time.sleep(0.05)
        raise RuntimeError(f"nothing listens on port {port}; {self.log}")

    def check(self) -> None:
        if self._child.poll() is not None:
            tail = self.log.read_text(errors="replace")[-2000:]
            raise RuntimeError(f"{self._child.args!r} ended with {self._child.returncode}:\n{tail}")

    def wait(self) -> None:
        """For a program that ends by itself. Raises RuntimeError if it failed."""
        if self._child.wait(60) != 0:
            self.check()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._child.terminate()
        try:
            self._child.wait(30)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()

    def _tree(self) -> list[int]:
        found, new = [], [self._child.pid]
        while new:
            found += new
            new = [child for pid in new for child in _children(pid)]
        return found

    def cpu_s(self) -> float:
        """CPU seconds so far, of children that ended as well."""
        return sum(_cpu_ticks(pid) for pid in self._tree()) / TICKS

    def memory_mib(self, kind: str = "Rss") -> float:
        """`Rss`, or `Pss`: pages that processes share counted once."""
        return sum(_memory_kib(pid, kind) for pid in self._tree()) / 1024


def _children(pid: int) -> list[int]:
    found: list[int] = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += [int(word) for word in path.read_text().split()]
        except OSError:
            continue
    return found


def _cpu_ticks(pid: int) -> int:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return sum(int(field) for field in fields[11:15])


def _memory_kib(pid: int, kind: str) -> int:
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    found = re.search(rf"^{kind}:\s+(\d+) kB", text, re.MULTILINE)
    return int(found.group(1)) if found else 0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
