"""The X-API-Secret guard: everything below /api/v1 needs one of the configured secrets, routes or not."""

import hashlib
import hmac
import time
from collections.abc import Callable, Iterable, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address

from llm_service.settings import Secret

HEADER = b"x-api-secret"
GUARDED = "/api/v1"


MOST_WRONG = 20
"""Wrong secrets that one peer may send within a window."""
WINDOW_S = 60.0
MOST_PEERS = 10_000


class SecretCheck:
    def __init__(self, secrets: Sequence[Secret]) -> None:
        self._secrets = [secret.reveal().encode() for secret in secrets]
        self._clients = [hashlib.sha256(secret).hexdigest()[:8] for secret in self._secrets]

    def client(self, sent: Sequence[bytes]) -> str | None:
        """Which secret was sent, by the start of its hash; None unless it is exactly one, and ours.

        Compares with every secret, in constant time each.
        """
        if len(sent) != 1:
            return None
        matches = [hmac.compare_digest(sent[0], secret) for secret in self._secrets]
        return next((client for client, same in zip(self._clients, matches, strict=True) if same), None)


def sent_secrets(headers: Iterable[tuple[bytes, bytes]]) -> list[bytes]:
    return [value for name, value in headers if name == HEADER]


def peer_of(address: str) -> str:
    """What one peer is counted by: its address, or of IPv6 the 64 bits of the network that it has to itself."""
    try:
        found = ip_address(address)
    except ValueError:
        return address  # the name of a socket, or none
    if isinstance(found, IPv4Address):
        return address
    return str(found.ipv4_mapped or IPv6Address(int(found) >> 64 << 64))


class WrongTries:
    """How many wrong secrets each peer has sent within a minute, in this process.

    Over the limit its wrong ones are refused as too many; a right one always passes: behind a proxy all clients
    are one peer, and a stranger must not shut them out.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._peers: dict[str, tuple[float, int]] = {}

    def note(self, peer: str) -> float:
        """Count one more. Returns 0 while there may be more, else the seconds until the peer's window ends."""
        moment = self._now()
        began, count = self._peers.get(peer, (moment, 0))
        if moment - began >= WINDOW_S:
            began, count = moment, 0
            self._peers.pop(peer)
        elif peer not in self._peers and len(self._peers) >= MOST_PEERS:
            del self._peers[
                next(iter(self._peers))
            ]  # the oldest window: they are kept in order of their beginning
        self._peers[peer] = (began, count + 1)
        return began + WINDOW_S - moment if count >= MOST_WRONG else 0.0


def is_guarded(path: str) -> bool:
    """Whether a path needs the secret, in whatever spelling: doubled slashes and case do not open a door."""
    squeezed = "/" + "/".join(part for part in path.lower().split("/") if part not in {"", "."})
    return squeezed == GUARDED or squeezed.startswith(GUARDED + "/")
