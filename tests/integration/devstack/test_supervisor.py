import fcntl
import os
import signal
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path

import asyncpg
import pytest
from tests.integration.devstack.conftest import StartStack
from tests.integration.devstack.processes import fetch, is_alive, wait_until

from llm_service.devstack import ChildSpec, start_servers, supervise


def ask_to_stop() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def ignore(_: str) -> None:
    """Take a line and do nothing."""


def shell(name: str, script: str, **options: object) -> ChildSpec:
    return ChildSpec(name=name, argv=["/bin/sh", "-c", script], **options)  # type: ignore[arg-type]


def test_ctrl_c_in_a_terminal_stops_everything_with_exit_code_0(
    open_dir: Path, start_stack: StartStack
) -> None:
    keyboard, terminal = os.openpty()
    stack = start_stack(
        open_dir,
        "--throwaway",
        stdin=terminal,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    pids = stack.pids()
    assert all(os.getsid(pid) == pid for pid in pids), "the terminal's Ctrl-C reaches a child by itself"
    os.write(keyboard, b"\x03")
    assert stack.process.wait(15) == 0
    assert [pid for pid in pids if is_alive(pid)] == []
    os.close(keyboard)
    os.close(terminal)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells children that their parent died")
def test_a_killed_supervisor_leaves_nothing_running(open_dir: Path, start_stack: StartStack) -> None:
    stack = start_stack(open_dir, "--throwaway")
    pids = stack.pids()
    left = Path(stack.facts["redis_url"].removeprefix("unix://").partition("?")[0]).parent.parent
    stack.process.kill()
    wait_until(lambda: not any(map(is_alive, pids)), "everything below the killed supervisor ended")
    assert left.exists()
    start_servers(open_dir, throwaway=True, database_url="somewhere://else").stop()
    assert not left.exists(), "the next start leaves the directory of the killed one"


def test_servers_that_survived_a_killed_supervisor_are_stopped_by_the_next(
    open_dir: Path, start_stack: StartStack
) -> None:
    killed = start_stack(open_dir, "--orphan")
    survivors = killed.read_until("pids", "api")["pids"].values()
    killed.process.kill()
    killed.process.wait()
    wait_until(lambda: not is_alive(killed.facts["api"]), "the stand-in for the API ended")
    assert all(map(is_alive, survivors)), "the servers did not survive, so this test shows nothing"
    with start_servers(open_dir) as servers:
        assert not any(map(is_alive, survivors))
        assert fetch(servers.database_url, "SELECT 1") == 1


def test_a_killed_postgres_is_started_again_with_its_data(open_dir: Path, start_stack: StartStack) -> None:
    stack = start_stack(open_dir, "--throwaway")
    facts = stack.read_until("pids")
    url, postgres = facts["database_url"], facts["pids"]["postgres"]
    fetch(url, "CREATE TABLE kept AS SELECT 1 AS one")
    os.kill(postgres, signal.SIGKILL)
    assert stack.read_until("line")["line"].startswith(
        "postgres ended (killed by SIGKILL); starting it again"
    )
    wait_until(lambda: answers(url), "PostgreSQL answers again")
    assert fetch(url, "SELECT one FROM kept") == 1
    stack.process.send_signal(signal.SIGTERM)
    assert stack.process.wait(15) == 0


def answers(database_url: str) -> bool:
    try:
        return bool(fetch(database_url, "SELECT true"))
    except (OSError, asyncpg.PostgresError):
        return False


def test_a_child_that_dies_is_started_again_and_later_each_time() -> None:
    lines: list[str] = []

    def listen(line: str) -> None:
        lines.append(line)
        if len(lines) == 2:
            ask_to_stop()

    assert supervise([shell("api", "exit 3")], on_line=listen) == 0
    assert lines[:2] == [
        "api ended (exit code 3); starting it again in 0.5 s.",
        "api ended (exit code 3); starting it again in 1 s.",
    ]


def test_wrong_settings_end_everything_with_their_exit_code(tmp_path: Path) -> None:
    other = shell("worker", f"echo $$ > {tmp_path}/pid; exec sleep 600")
    lines: list[str] = []
    code = supervise(
        [other, shell("api", f"while [ ! -s {tmp_path}/pid ]; do :; done; exit 2", fatal_exit_codes={2})],
        on_line=lines.append,
    )
    assert code == 2
    assert lines == ["api ended (exit code 2), so everything stops."]
    assert not is_alive(int((tmp_path / "pid").read_text()))


def test_children_stop_in_reverse_order(tmp_path: Path) -> None:
    def spec(name: str) -> ChildSpec:
        script = f"trap 'echo {name} >> {tmp_path}/order; exit' TERM; touch {tmp_path}/{name}; while :; do sleep 0.01; done"
        return shell(name, script, ready=(tmp_path / name).exists)

    assert (
        supervise([spec("first"), spec("second"), spec("third")], on_line=ignore, on_ready=ask_to_stop) == 0
    )
    assert (tmp_path / "order").read_text().split() == ["third", "second", "first"]


def deaf(directory: Path, grace_s: float) -> ChildSpec:
    """Describe a child, with a child of its own, that does not care about SIGTERM."""
    script = (
        f"trap '' TERM; sleep 600 & echo $! > {directory}/below; touch {directory}/ready; wait; sleep 600"
    )
    return shell("deaf", script, ready=(directory / "ready").exists, grace_s=grace_s)


def test_a_child_that_does_not_stop_is_killed_with_its_children_after_its_grace(tmp_path: Path) -> None:
    started = time.monotonic()
    assert supervise([deaf(tmp_path, grace_s=0.3)], on_line=ignore, on_ready=ask_to_stop) == 0
    assert time.monotonic() - started < 3
    below = int((tmp_path / "below").read_text())
    wait_until(lambda: not is_alive(below), "the child of the child ended")


def test_ctrl_c_while_stopping_kills_at_once(tmp_path: Path) -> None:
    def listen(line: str) -> None:
        if line.startswith("Stopping"):
            os.kill(os.getpid(), signal.SIGINT)

    started = time.monotonic()
    assert supervise([deaf(tmp_path, grace_s=60)], on_line=listen, on_ready=ask_to_stop) == 0
    assert time.monotonic() - started < 5


def test_a_terminal_that_is_gone_does_not_keep_children_running(tmp_path: Path) -> None:
    def cannot_write(line: str) -> None:
        raise OSError(5, "Input/output error")

    spec = shell("api", f"echo $$ > {tmp_path}/pid; exec sleep 600", ready=has_text(tmp_path / "pid"))
    assert supervise([spec], on_line=cannot_write, on_ready=ask_to_stop) == 0
    assert not is_alive(int((tmp_path / "pid").read_text()))


def has_text(path: Path) -> Callable[[], bool]:
    return lambda: path.exists() and path.stat().st_size > 0
