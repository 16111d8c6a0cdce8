"""Finds the servers a killed supervisor left behind, by pid file, and stops them.

Linux stops them by itself (see `children.die_with_parent`); macOS does not. A pid in a file proves nothing: after a
container restart it often names another process, so the command line must name the data directory too.
"""

import os
import re
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

STOP_WAIT_S = 20.0
KILL_WAIT_S = 5.0


def stop_survivor(pid_file: Path, data: Path, stop_signal: signal.Signals) -> None:
    """Stop the server that `pid_file` names if it serves `data`; drop the file either way."""
    pid = _read_pid(pid_file)
    if pid is not None:
        for number, seconds in ((stop_signal, STOP_WAIT_S), (signal.SIGKILL, KILL_WAIT_S)):
            if not _serves(pid, data):
                break
            with suppress(ProcessLookupError):
                os.kill(pid, number)
            _wait_for_end(pid, data, seconds)
    pid_file.unlink(missing_ok=True)


def _read_pid(pid_file: Path) -> int | None:
    try:
        first_line = pid_file.read_text().split("\n", 1)[0].strip()
    except FileNotFoundError:
        return None
    return int(first_line) if first_line.isdigit() else None


def _serves(pid: int, data: Path) -> bool:
    command = _command_line(pid)
    is_server = re.match(r"\S*(postgres|valkey|redis)", command) is not None
    return is_server and re.search(re.escape(str(data)) + r"(\s|$)", command) is not None


def _command_line(pid: int) -> str:
    if Path("/proc/self/cmdline").exists():
        try:
            return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            return ""
    found = subprocess.run(["ps", "-ww", "-o", "command=", "-p", str(pid)], capture_output=True, check=False)
    return found.stdout.decode(errors="replace")


def _wait_for_end(pid: int, data: Path, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while _serves(pid, data) and time.monotonic() < deadline:
        time.sleep(0.02)
