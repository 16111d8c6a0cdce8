"""Prepares a Redis (or Valkey) server on a private Unix socket, as a child process."""

import socket
from functools import partial
from pathlib import Path

from llm_service.devstack.binaries import Program, server_environment
from llm_service.devstack.children import ChildSpec
from llm_service.devstack.places import Place
from llm_service.devstack.survivors import REDIS_PID_FILE, REDIS_STOP, stop_survivor

DATABASES = 64  # test runners take one each

DURABLE = {"appendonly": "yes", "appendfsync": "everysec"}
THROWAWAY = {"appendonly": "no"}


def redis_child(program: Program, place: Place) -> ChildSpec:
    data = place.account.own_directory(place.data / program.data_name)
    settings = {
        "port": "0",
        "unixsocket": str(socket_path(place.sockets)),
        "unixsocketperm": "700",
        "dir": str(data),
        "pidfile": str(data / REDIS_PID_FILE),
        "daemonize": "no",
        "databases": str(DATABASES),
        "save": "",
        # A queue must refuse new jobs when memory is full, never drop old ones.
        "maxmemory-policy": "noeviction",
        # The command line keeps naming the data directory, which is how a survivor is known.
        "set-proc-title": "no",
        **(THROWAWAY if place.throwaway else DURABLE),
    }
    return ChildSpec(
        name=program.family,
        argv=[str(program.path), *(word for key, value in settings.items() for word in (f"--{key}", value))],
        env=server_environment(),
        cwd=Path("/"),
        ready=partial(is_answering, socket_path(place.sockets)),
        stop_signal=REDIS_STOP,
        parent_death_signal=None if place.orphan else REDIS_STOP,
        account=place.account,
        log=place.logs / "redis.log",
        before_start=partial(stop_survivor, data),
    )


def socket_path(sockets: Path) -> Path:
    return sockets / "redis.sock"


def redis_url(sockets: Path) -> str:
    return f"unix://{socket_path(sockets)}?db=0"


def is_answering(path: Path) -> bool:
    """Whether it answers a PING; while it still loads its data it answers `-LOADING`."""
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(1)
            connection.connect(str(path))
            connection.sendall(b"PING\r\n")
            return connection.recv(64).startswith(b"+PONG")
    except OSError:
        return False
