"""Finds the servers a killed supervisor left behind, by pid file, and stops them.

Linux stops them by itself (see `children.die_with_parent`); macOS does not. A pid in a file proves nothing:
after a container restart it often names another process, so the command line must name the data as well.
"""

import os
import re
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

POSTGRES_PID_FILE, REDIS_PID_FILE = "postmaster.pid", "server.pid"
POSTGRES_STOP = signal.SIGINT  # "fast": ends the connections, then writes a checkpoint
REDIS_STOP = signal.SIGTERM  # writes what is still in memory, then ends

STOP_WAIT_S = 20.0
KILL_WAIT_S = 5.0


def stop_survivor(data: Path) -> None:
    """Stop a server that still serves `data`, and drop its pid file, true or stale."""
    for name, stop_signal in ((POSTGRES_PID_FILE, POSTGRES_STOP), (REDIS_PID_FILE, REDIS_STOP)):
        pid = _read_pid(data / name)
        if pid is not None:
            _stop(pid, data, stop_signal)
        (data / name).unlink(missing_ok=True)


def _read_pid(pid_file: Path) -> int | None:
    try:
        first_line = pid_file.read_text().partition("\n")[0].strip()
    except FileNotFoundError:
        return None
    return int(first_line) if first_line.isdigit() else None


def _stop(pid: int, data: Path, stop_signal: signal.Signals) -> None:
    for number, seconds in ((stop_signal, STOP_WAIT_S), (signal.SIGKILL, KILL_WAIT_S)):
        deadline = time.monotonic() + seconds
        with suppress(ProcessLookupError):
            if _serves(pid, data):
                os.kill(pid, number)
        while _serves(pid, data) and time.monotonic() < deadline:
            time.sleep(0.02)


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
