"""Starts a stack as a process of its own, and watches processes."""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import asyncpg

RUN_STACK = Path(__file__).with_name("run_stack.py")


def wait_until(condition: Callable[[], object], claim: str, seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {claim}"
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    """A zombie is not alive: in a container nobody may be there to bury it."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except ProcessLookupError:
        return False
    except FileNotFoundError:  # it ended in between, or there is no /proc here
        return not Path("/proc/self").exists()


def fetch(database_url: str, query: str) -> Any:
    """Run `query` on a connection of its own and return the first value of the first row."""

    async def ask() -> Any:
        connection = await asyncpg.connect(database_url)
        try:
            return await connection.fetchval(query)
        finally:
            await connection.close()

    return asyncio.run(ask())


class RunningStack:
    """The process of `run_stack.py` and the facts it has told so far."""

    def __init__(self, state_dir: Path, *options: str, **popen: Any) -> None:
        python = popen.pop("python", sys.executable)
        self.process = subprocess.Popen(
            [python, RUN_STACK, state_dir, *options], stdout=subprocess.PIPE, text=True, **popen
        )
        self.facts: dict[str, Any] = {}

    def read_until(self, *names: str) -> dict[str, Any]:
        assert self.process.stdout
        while not all(name in self.facts for name in names):
            line = self.process.stdout.readline()
            assert line, f"it ended with {self.process.wait()} and told only {self.facts}"
            self.facts.update(json.loads(line))
        return self.facts

    def pids(self) -> list[int]:
        """Every process below it: the servers, the stand-in for the API, and PostgreSQL's own children."""
        facts = self.read_until("pids", "api")
        return [*facts["pids"].values(), facts["api"], *children_of(facts["pids"]["postgres"])]

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(30)
        if self.process.stdout:
            self.process.stdout.close()


def children_of(pid: int) -> list[int]:
    found = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in found.read_text().split()] if found.exists() else []
