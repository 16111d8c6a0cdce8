"""Decides which account the servers run as, and knows what that account can reach."""

import os
import pwd
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from llm_service.devstack.errors import DevstackError

READ, ENTER = 4, 1


class SpawnAs(TypedDict, total=False):
    """The arguments of `subprocess.Popen` that change the account."""

    user: int
    group: int
    extra_groups: list[int]


@dataclass(frozen=True)
class Account:
    """A user the servers run as. `dropped` says that we are root and it is not."""

    name: str
    uid: int
    gid: int
    dropped: bool

    def spawn_as(self) -> SpawnAs:
        if not self.dropped:
            return {}
        return {"user": self.uid, "group": self.gid, "extra_groups": []}

    def own_directory(self, path: Path) -> Path:
        """Make `path` this account's private directory, whatever the umask."""
        path.mkdir(exist_ok=True)
        path.chmod(0o700)
        if self.dropped:
            os.chown(path, self.uid, self.gid)
        return path

    def reaches(self, path: Path) -> bool:
        """Whether every directory down to `path`, itself included, may be entered."""
        return all(self._may(each, ENTER) for each in (path, *path.parents))

    def reads_all(self, paths: Iterable[Path]) -> bool:
        return all(self._may(each, READ | ENTER if each.is_dir() else READ) for each in paths)

    def _may(self, path: Path, wanted: int) -> bool:
        found = path.stat()
        shift = 6 if found.st_uid == self.uid else 3 if found.st_gid == self.gid else 0
        return (stat.S_IMODE(found.st_mode) >> shift) & wanted == wanted


def choose_account(existing: Iterable[Path]) -> Account:
    """Choose the owner of the data that exists; else, for root, $SUDO_USER, `postgres` or `nobody`.

    PostgreSQL refuses to run as root, and files of two owners in one data directory stop it as well.
    """
    owners = {path: path.stat().st_uid for path in existing}
    if os.geteuid() == 0:
        return _account_below_root([uid for uid in owners.values() if uid != 0])
    for path, uid in owners.items():
        if uid != os.geteuid():
            raise DevstackError(
                f"{path} belongs to {name_of(uid)}, not to you ({name_of(os.geteuid())}): "
                "run as the user who made it (root, if it was made with sudo), or remove it."
            )
    return Account(name_of(os.geteuid()), os.geteuid(), os.getegid(), dropped=False)


def require_passwd_entry() -> None:
    """Refuse early where initdb would: it needs a name for the effective user id."""
    try:
        pwd.getpwuid(os.geteuid())
    except KeyError:
        raise DevstackError(
            f"User id {os.geteuid()} has no entry in /etc/passwd, which PostgreSQL's initdb needs. "
            "Set DATABASE_URL to a server of yours, or give the id an entry."
        ) from None


def name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user id {uid}"


def _account_below_root(owners: list[int]) -> Account:
    if owners:
        return Account(name_of(owners[0]), owners[0], _group_of(owners[0]), dropped=True)
    for name in (os.environ.get("SUDO_USER", ""), "postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        if entry.pw_uid != 0:
            return Account(name, entry.pw_uid, entry.pw_gid, dropped=True)
    raise DevstackError(
        "PostgreSQL refuses to run as root, and there is neither a `postgres` nor a `nobody` user to run it "
        "as. Start as an ordinary user, or set DATABASE_URL and REDIS_URL."
    )


def _group_of(uid: int) -> int:
    try:
        return pwd.getpwuid(uid).pw_gid
    except KeyError:
        return uid
