"""Chooses where the servers keep data, sockets and logs, and clears away what a killed run left."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from llm_service.devstack.accounts import Account, choose_account, name_of
from llm_service.devstack.binaries import PROJECT, shelter, shelter_path
from llm_service.devstack.errors import DevstackError
from llm_service.devstack.survivors import stop_survivor

RUN_PREFIX = f"{PROJECT}-dev-"
DATA_NAMES = ("pg*", "valkey*", "redis*")
MEMORY = Path("/dev/shm")  # noqa: S108 -- used below a directory of mkdtemp only
MEMORY_NEEDED_BYTES = 1 << 30
LONGEST_BASE = 50  # a socket's whole path has room for 104 bytes on macOS, 108 on Linux


@dataclass(frozen=True)
class Place:
    """Where one start of the servers lives, as whom, and how long (see `start_servers`)."""

    account: Account
    data: Path
    sockets: Path
    logs: Path
    throwaway: bool
    orphan: bool


def open_place(state_dir: Path, undo: ExitStack, *, throwaway: bool, orphan: bool) -> Place:
    account, data = (choose_account([]), None) if throwaway else _durable_data(state_dir)
    run_dir = _open_run_dir(_memory_or_disk(account) if throwaway else _temp_base(account), account, undo)
    if data is None:
        data = account.own_directory(run_dir / "data")
    sockets = account.own_directory(run_dir / "s")
    return Place(account, data, sockets, state_dir / "logs", throwaway, orphan)


def prepare_state(state_dir: Path) -> None:
    """Make the state directory; root's lets the servers' account pass through, but not look around."""
    if not state_dir.exists():
        state_dir.mkdir(parents=True)
        state_dir.chmod(0o711 if os.geteuid() == 0 else 0o700)
    if not os.access(state_dir, os.W_OK | os.X_OK):
        owner = name_of(state_dir.stat().st_uid)
        raise DevstackError(
            f"{state_dir} belongs to {owner} and you may not write there: "
            f"start as {owner}, or remove it, or choose another state directory."
        )
    (state_dir / "logs").mkdir(exist_ok=True)


@contextmanager
def lock_state(state_dir: Path) -> Iterator[None]:
    """Hold the state directory until this process ends, however it ends; children do not inherit the lock."""
    with (state_dir / "lock").open("a+") as file:
        if not _try_lock(file):
            file.seek(0)
            holder = file.read().strip() or "unknown"
            raise DevstackError(f"{state_dir} is already in use by process {holder}: stop that one first.")
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


def _durable_data(state_dir: Path) -> tuple[Account, Path]:
    """Leave data where it is; put new data in the state directory if the servers' account reaches it."""
    sheltered = shelter_path(state_dir)
    in_shelter = _data_in(sheltered) if _made_by_root(sheltered) else []
    account = choose_account([*in_shelter, *_data_in(state_dir)])
    if account.dropped and (in_shelter or not account.reaches(state_dir)):
        return account, shelter(state_dir)
    return account, state_dir


def _data_in(home: Path) -> list[Path]:
    return [path for pattern in DATA_NAMES for path in home.glob(pattern)]


def _made_by_root(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink() and path.stat().st_uid == 0


def _memory_or_disk(account: Account) -> Path:
    usable = MEMORY.is_dir() and os.access(MEMORY, os.W_OK | os.X_OK) and account.reaches(MEMORY)
    if usable and shutil.disk_usage(MEMORY).free > MEMORY_NEEDED_BYTES:
        return MEMORY
    return _temp_base(account)


def _temp_base(account: Account) -> Path:
    configured = Path(tempfile.gettempdir())
    if len(str(configured)) <= LONGEST_BASE and account.reaches(configured):
        return configured
    return Path("/tmp")  # noqa: S108 -- as above


def _open_run_dir(base: Path, account: Account, undo: ExitStack) -> Path:
    """Make a directory that lives as long as this run: its lock tells the next run whether it still does."""
    _sweep(base)
    run_dir = Path(tempfile.mkdtemp(prefix=RUN_PREFIX, dir=base))
    undo.callback(shutil.rmtree, run_dir, ignore_errors=True)
    run_dir.chmod(0o711 if account.dropped else 0o700)
    file = undo.enter_context((run_dir / "lock.new").open("w"))
    _try_lock(file)
    (run_dir / "lock.new").rename(run_dir / "lock")
    return run_dir


def _sweep(base: Path) -> None:
    """Remove our directories whose run is over, and stop servers that still run in them."""
    for run_dir in base.glob(f"{RUN_PREFIX}*"):
        with suppress(FileNotFoundError):  # its own run removes it at this moment, or has not locked it yet
            if run_dir.is_symlink() or run_dir.stat().st_uid != os.geteuid():
                continue
            with (run_dir / "lock").open() as file:
                if not _try_lock(file):
                    continue
                for data in (run_dir / "data").glob("*"):
                    stop_survivor(data)
                shutil.rmtree(run_dir, ignore_errors=True)


def _try_lock(file: TextIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
