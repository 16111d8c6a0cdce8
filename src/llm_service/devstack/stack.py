"""Starts PostgreSQL and Redis for one checkout, and stops them again."""

import time
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from llm_service.devstack import postgres, redis
from llm_service.devstack.accounts import require_passwd_entry
from llm_service.devstack.binaries import Prefer, find_postgres, find_redis, make_runnable
from llm_service.devstack.children import Child, ChildSpec
from llm_service.devstack.errors import DevstackError
from llm_service.devstack.places import lock_state, open_place, prepare_state

START_WAIT_S = 60.0
START_ATTEMPTS = 3  # what a killed PostgreSQL left in memory may need a moment to go
LOG_TAIL_LINES = 10


class Servers:
    """The running servers, or those whose URLs were given. Leaving the context stops what was started."""

    def __init__(
        self, database_url: str, redis_url: str, children: tuple[Child, ...], undo: ExitStack
    ) -> None:
        self.database_url = database_url
        self.redis_url = redis_url
        self.children = children
        self._undo = undo

    def stop(self) -> None:
        """Stop the servers, remove sockets and throwaway data, release the lock. Safe to repeat."""
        self._undo.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def start_servers(
    state_dir: Path,
    *,
    throwaway: bool = False,
    prefer: Prefer = "wheel",
    database_url: str | None = None,
    redis_url: str | None = None,
    orphan: bool = False,
) -> Servers:
    """Start the servers whose URL is not given, wait until they answer, and make the database.

    Durable data is kept in `state_dir`, or in /var/tmp where the servers' account cannot reach that, and the
    directory is locked. Throwaway data is gone at `stop`, would not survive a power cut, and takes no lock.
    Logs are in `state_dir`/logs either way. `orphan` lets servers outlive a killed supervisor, as on macOS.
    Call it from the main thread: Linux ends the servers together with the thread that started them.
    """
    try:
        with ExitStack() as undo:
            prepare_state(state_dir := state_dir.absolute())
            if not throwaway:
                undo.enter_context(lock_state(state_dir))
            if database_url is not None and redis_url is not None:
                return Servers(database_url, redis_url, (), undo.pop_all())
            place = open_place(state_dir, undo, throwaway=throwaway, orphan=orphan)
            children: list[Child] = []
            if redis_url is None:  # first, because it gets ready while initdb works
                program = make_runnable(find_redis(prefer), place.account)
                children.append(_start(redis.redis_child(program, place), undo))
            if database_url is None:
                require_passwd_entry()
                program = make_runnable(find_postgres(prefer), place.account)
                children.append(_start(postgres.postgres_child(program, place), undo))
            for child in children:
                _wait_until_ready(child)
            if database_url is None:
                postgres.create_database(place.sockets)
            return Servers(
                database_url or postgres.database_url(place.sockets),
                redis_url or redis.redis_url(place.sockets),
                tuple(children),
                undo.pop_all(),
            )
    except PermissionError as error:
        raise DevstackError(
            f"The servers could not be started: {error}. Start as the user who owns these files (as root, "
            "only with the right to change users), or set DATABASE_URL and REDIS_URL."
        ) from error


def _start(spec: ChildSpec, undo: ExitStack) -> Child:
    child = Child(spec)
    undo.callback(child.stop)
    child.start()
    return child


def _wait_until_ready(child: Child) -> None:
    deadline, attempts = time.monotonic() + START_WAIT_S, 1
    while not child.is_ready:
        if not child.is_running:
            if attempts == START_ATTEMPTS:
                raise DevstackError(f"{child.spec.name} ends while starting. {_log_tail(child)}")
            time.sleep(0.3)
            child.start()
            attempts += 1
        if time.monotonic() > deadline:
            raise DevstackError(
                f"{child.spec.name} does not answer after {START_WAIT_S:g} s. {_log_tail(child)}"
            )
        time.sleep(0.01)


def _log_tail(child: Child) -> str:
    if child.spec.log is None:
        return ""
    lines = child.spec.log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:]
    return "\n".join([f"Its log, {child.spec.log}, ends:", *lines])
