"""Prepares a PostgreSQL cluster and its server on a private Unix socket, as a child process."""

import shutil
import signal
import socket
import struct
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import BinaryIO

from llm_service.devstack.accounts import Account
from llm_service.devstack.binaries import Program, server_environment
from llm_service.devstack.children import ChildSpec, die_with_parent, open_log
from llm_service.devstack.errors import DevstackError
from llm_service.devstack.places import Place
from llm_service.devstack.survivors import POSTGRES_STOP, stop_survivor

KILL_SIGNAL = signal.SIGQUIT  # "immediate": ends at once and recovers at the next start
ROLE, DATABASE, PORT = "llm", "llm_service", 5432
PROTOCOL_3 = 196608

# Commits still reach the kernel, so what was acknowledged survives a killed server; not a power cut.
THROWAWAY = {"fsync": "off", "full_page_writes": "off"}


def postgres_child(program: Program, place: Place) -> ChildSpec:
    """Make the cluster where there is none yet, and describe the server on it."""
    data, sockets, log = place.data / program.data_name, place.sockets, place.logs / "postgres.log"
    if not (data / "PG_VERSION").exists():
        _make_cluster(program, place.account, data, log, sync=not place.throwaway)
    settings = {
        "listen_addresses": "",
        "port": str(PORT),
        "unix_socket_directories": str(sockets),
        "unix_socket_permissions": "0700",
        "max_connections": "200",
        "timezone": "UTC",
        "log_timezone": "UTC",
        **(THROWAWAY if place.throwaway else {}),
    }
    options = [word for key, value in settings.items() for word in ("-c", f"{key}={value}")]
    return ChildSpec(
        name="postgres",
        argv=[str(program.path), "-D", str(data), *options],
        env=server_environment(),
        cwd=Path("/"),
        ready=partial(is_answering, sockets),
        stop_signal=POSTGRES_STOP,
        kill_signal=KILL_SIGNAL,
        parent_death_signal=None if place.orphan else POSTGRES_STOP,
        account=place.account,
        log=log,
        before_start=partial(_clear_the_way, data, sockets),
    )


def database_url(sockets: Path) -> str:
    """Name the port as well: asyncpg takes $PGPORT for a Unix socket too, wherever the URL is silent."""
    return f"postgresql://{ROLE}@/{DATABASE}?host={sockets}&port={PORT}"


def is_answering(sockets: Path) -> bool:
    try:
        _execute(sockets, "SELECT 1")
    except (OSError, DevstackError):
        return False
    return True


def create_database(sockets: Path) -> None:
    """Create our database where it is missing."""
    if not _execute(sockets, f"SELECT 1 FROM pg_database WHERE datname = '{DATABASE}'"):  # noqa: S608
        _execute(sockets, f"CREATE DATABASE {DATABASE}")


def _make_cluster(program: Program, account: Account, data: Path, log: Path, *, sync: bool) -> None:
    """Run initdb next door and rename: one that was interrupted must not look like a cluster."""
    unfinished = data.with_name(f"{data.name}.unfinished")
    if unfinished.exists():
        shutil.rmtree(unfinished)
    account.own_directory(unfinished)
    initdb = [str(program.path.with_name("initdb")), "-D", str(unfinished), *_locale(program.major)]
    options = ["-U", ROLE, "-A", "trust", "-E", "UTF8", *([] if sync else ["--no-sync"])]
    with open_log(log) as output:
        made = subprocess.run(
            [*initdb, *options],
            env=server_environment(),
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=output,
            start_new_session=True,
            preexec_fn=die_with_parent(signal.SIGKILL),
            check=False,
            **account.spawn_as(),
        )
    if made.returncode != 0:
        raise DevstackError(f"initdb could not make {data} (exit code {made.returncode}); {log} says why.")
    unfinished.rename(data)


def _locale(major: int) -> list[str]:
    """Choose rules for upper and lower case that are the same on every machine, from version 17 on."""
    if major >= 17:
        return ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    return ["--locale=C", "--lc-ctype=en_US.UTF-8" if sys.platform == "darwin" else "--lc-ctype=C.UTF-8"]


def _clear_the_way(data: Path, sockets: Path) -> None:
    """Remove lock files of a server that is gone: PostgreSQL believes them if anyone has the pid now."""
    stop_survivor(data)
    (sockets / f".s.PGSQL.{PORT}.lock").unlink(missing_ok=True)


def _execute(sockets: Path, statement: str) -> int:
    """Run one statement over PostgreSQL's own protocol and return the number of rows.

    This is all a keeper of processes needs, and no driver has to be installed for it.
    """
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(30 if statement.startswith("CREATE") else 2)
        connection.connect(str(sockets / f".s.PGSQL.{PORT}"))
        stream = connection.makefile("rb")
        hello = f"user\0{ROLE}\0database\0postgres\0\0".encode()
        connection.sendall(struct.pack("!ii", len(hello) + 8, PROTOCOL_3) + hello)
        _read_until_idle(stream)
        query = statement.encode() + b"\0"
        connection.sendall(b"Q" + struct.pack("!i", len(query) + 4) + query)
        return _read_until_idle(stream)


def _read_until_idle(stream: BinaryIO) -> int:
    rows = 0
    while head := stream.read(5):
        kind, length = struct.unpack("!ci", head)
        body = stream.read(length - 4)
        if kind == b"E":
            raise DevstackError(f"PostgreSQL: {body.decode(errors='replace')}")
        if kind == b"Z":
            return rows
        rows += kind == b"D"
    raise DevstackError("PostgreSQL closed the connection.")
