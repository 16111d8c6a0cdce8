"""The API and the worker as a container of ours runs them: without rights, and where nothing can be written.

No container is needed for that: the kernel takes a process's rights away, and refuses it every byte of a file.
"""

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

import httpx
import pytest
from sqlalchemy.engine import make_url
from tests.acceptance.processes import bare_environment, free_port, wait_until_healthy
from tests.chaos.proxy import Proxy
from tests.conftest import AUTH
from tests.fakes.receiver import Receiver

GIVE_EVERYTHING_UP = """
import ctypes, os, resource, sys
PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, CAPABILITIES = 24, 38, 41
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
libc = ctypes.CDLL(None)
assert libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
if os.geteuid() == 0:
    for number in range(CAPABILITIES):
        libc.prctl(PR_CAPBSET_DROP, number, 0, 0, 0)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""
"""No file may hold a byte of the program that follows, and root is nobody special in it."""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux alone takes rights away like this")


class Child:
    """A process without rights in a directory that it can't write to; `output` is what it said."""

    def __init__(self, command: list[str], environment: dict[str, str], place: Path) -> None:
        self.output = ""
        self._process = subprocess.Popen(
            [sys.executable, "-c", GIVE_EVERYTHING_UP, *command],
            env=environment,
            cwd=place,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.output += line

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def stop(self) -> int:
        self._process.send_signal(signal.SIGTERM)
        return self.wait()

    def wait(self) -> int:
        code = self._process.wait(20)
        self._reader.join()
        return code


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """The working directory, the home and the place for temporary files, all in one: nobody writes there."""
    found = tmp_path / "read-only"
    found.mkdir()
    found.chmod(0o555)
    yield found
    found.chmod(0o755)


@pytest.fixture
async def bare(environment: dict[str, str], place: Path) -> AsyncIterator[dict[str, str]]:
    """The servers by TCP: to the sockets of the development servers only their owner has a right, and root."""
    database, redis = make_url(environment["DATABASE_URL"]), urlsplit(environment["REDIS_URL"])
    async with AsyncExitStack() as stack:
        if folder := database.query.get("host"):
            proxy = await stack.enter_async_context(Proxy(Path(str(folder)) / ".s.PGSQL.5432"))
            database = database.set(host="127.0.0.1", port=proxy.port, query={})
        if redis.scheme == "unix":
            proxy = await stack.enter_async_context(Proxy(Path(redis.path)))
            number = redis.query.removeprefix("db=")
            redis = urlsplit(f"redis://127.0.0.1:{proxy.port}/{number}")
        urls = {"DATABASE_URL": database.render_as_string(hide_password=False), "REDIS_URL": redis.geturl()}
        yield in_place(environment | urls, place)


def in_place(environment: dict[str, str], place: Path) -> dict[str, str]:
    # As in the Dockerfile: Python would try to keep what it compiled, and go on without a word when it can't.
    return bare_environment(**environment, PYTHONDONTWRITEBYTECODE="1") | {
        "HOME": str(place),
        "TMPDIR": str(place),
        "PORT": str(free_port()),
    }


@pytest.mark.parametrize("attempt", ["open('x', 'w')", "print('x', file=open('{}/x', 'a'), flush=True)"])
def test_s58_such_a_process_can_write_nothing(place: Path, tmp_path: Path, attempt: str) -> None:
    """Where the directory is another's, the file stays empty: the second defence holds without the first."""
    with Child(["-c", attempt.replace("{}", str(tmp_path))], {}, place) as child:
        assert child.wait() != 0
    assert "PermissionError" in child.output or "File too large" in child.output
    assert [path.read_bytes() for path in tmp_path.glob("**/x")] in ([], [b""])


async def test_s58_both_processes_work_without_rights_and_without_a_file(
    bare: dict[str, str], place: Path, receiver: Receiver
) -> None:
    submission = {
        "workflow_name": "completion",
        "input_data": {"prompt": "Brno lies on the Svratka. " * 4_000},
        "webhook_url": receiver.url,
    }
    base = f"http://127.0.0.1:{bare['PORT']}"
    with ExitStack() as stack:
        api, worker = (
            stack.enter_context(Child(["-m", "llm_service", name], bare, place)) for name in ("api", "worker")
        )
        await asyncio.to_thread(wait_until_healthy, int(bare["PORT"]))
        async with httpx.AsyncClient(base_url=base, headers=AUTH) as client:
            job = (await client.post("/api/v1/workflow", json=submission)).json()
            await receiver.wait_for(1)
            detail = (await client.get(f"/api/v1/jobs/{job['job_id']}")).json()
            assert detail["status"] == "completed", detail["error_message"]
            for path in ("/metrics", "/schema/openapi.json", "/health"):
                assert (await client.get(path)).status_code == 200
        ended = [await asyncio.to_thread(child.stop) for child in (api, worker)]
        assert ended == [0, 0], api.output + worker.output
    for output in (api.output, worker.output):
        assert "Traceback" not in output
        assert '"level": "error"' not in output
    assert not os.listdir(place)  # noqa: PTH208 - a few names
