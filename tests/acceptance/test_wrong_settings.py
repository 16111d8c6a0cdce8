"""A wrong setting ends a real process with one line that names it and exit code 2, before it connects anywhere."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import pytest

CANARY = "hunter2canary"
LEAST = {
    "PATH": os.environ["PATH"],
    "DATABASE_URL": f"postgresql://app:{CANARY}@127.0.0.1:1/jobs",
    "REDIS_URL": "redis://127.0.0.1:1/0",
    "LLM_SERVICE_API_SECRET": "0123456789abcdef",
    "LLM_SERVICE_MODEL": "offline",
}
WRONG = {
    "a missing secret": ({"LLM_SERVICE_API_SECRET": ""}, "LLM_SERVICE_API_SECRET"),
    "a short secret": ({"LLM_SERVICE_API_SECRET": CANARY}, "LLM_SERVICE_API_SECRET"),
    "a missing model": ({"LLM_SERVICE_MODEL": ""}, "LLM_SERVICE_MODEL"),
    "an unknown provider": ({"LLM_SERVICE_MODEL": "mistral:large"}, "LLM_SERVICE_MODEL"),
    "a missing key": ({"LLM_SERVICE_MODEL": "openai:gpt-4o"}, "OPENAI_API_KEY"),
    "a wrong DATABASE_URL": ({"DATABASE_URL": f"mysql://app:{CANARY}@h/db"}, "DATABASE_URL"),
    "a wrong REDIS_URL": ({"REDIS_URL": f"http://:{CANARY}@h:6379"}, "REDIS_URL"),
    "a wrong port of REDIS_URL": ({"REDIS_URL": f"redis://:{CANARY}@h:port/0"}, "REDIS_URL"),
    "a wrong number": ({"LLM_SERVICE_WORKER_CONCURRENCY": "many"}, "LLM_SERVICE_WORKER_CONCURRENCY"),
    "a wrong encryption key": ({"LLM_SERVICE_ENCRYPTION_KEYS": CANARY}, "LLM_SERVICE_ENCRYPTION_KEYS"),
}


OF_THE_API = ("a missing secret", "a missing model", "an unknown provider", "a wrong DATABASE_URL")
CASES = [
    *[("api", case) for case in OF_THE_API],
    *[("worker", case) for case in WRONG if case not in OF_THE_API],
    ("worker", "an unknown provider"),
]
"""Both read the same settings: each case once is enough, but for what is found only when a part is opened."""


class Ending(NamedTuple):
    code: int
    out: str
    err: str


def start(command: str, changes: dict[str, str]) -> Ending:
    ended = subprocess.run(
        [sys.executable, "-m", "llm_service", command],
        env=LEAST | changes,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return Ending(ended.returncode, ended.stdout, ended.stderr)


@pytest.fixture(scope="module")
def endings() -> dict[tuple[str, str], Ending]:
    """How each process ended; they start two at a time, for starting is what takes the time."""
    with ThreadPoolExecutor(2) as pool:
        found = pool.map(lambda at: start(at[0], WRONG[at[1]][0]), CASES)
    return dict(zip(CASES, found, strict=True))


@pytest.mark.xdist_group("wrong settings")
@pytest.mark.parametrize(("command", "case"), CASES)
def test_s02_it_is_one_line_and_exit_code_2(
    endings: dict[tuple[str, str], Ending], command: str, case: str
) -> None:
    ending = endings[command, case]
    lines = ending.err.splitlines()
    assert len(lines) == 1, ending.err
    assert WRONG[case][1] in lines[0]
    assert "Traceback" not in ending.err
    assert (ending.code, ending.out) == (2, "")
    assert CANARY not in ending.err
