"""The address guard: a webhook goes to public addresses over https, and nowhere else.

`check_url` refuses on submit what can be told from the text; `GuardedConnector` checks the address of every
connection, after the name was resolved, so that a name that resolves elsewhere later gains nothing.
"""

import asyncio
import errno
import ipaddress
import re
import socket
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import SplitResult, urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from llm_service.errors import UnsafeWebhookURL

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

_UNICAST = ipaddress.ip_network("2000::/3")
"""All of IPv6 that is given out. Outside of it are the older ways of writing an IPv4 address, and what is to come."""
# `is_global` alone is not enough: Python 3.11 calls several of these global.
_REFUSED = [
    ipaddress.ip_network(network)
    for network in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
        *("192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15"),
        *("198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4"),
        *("::/96", "::ffff:0:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48", "100::/64", "2001::/23"),
        *("2001:db8::/32", "2002::/16", "3fff::/20", "5f00::/16", "fc00::/7", "fe80::/10", "fec0::/10"),
        "ff00::/8",
    )
]


_NAME = re.compile("[a-z0-9._-]+")
LOOKUPS = 64
"""Names looked up at a time, in threads of their own: a DNS server that hangs holds up no model call."""


class AddressRefused(OSError):
    """The connection would have gone to an address that webhooks may not reach. Told without the address."""

    def __init__(self) -> None:
        super().__init__(errno.EACCES, "address not allowed")


def is_public(address: str) -> bool:
    """Whether an IP address may be connected to; IPv4 inside IPv6 counts as what it stands for."""
    try:
        ip: IPAddress = ipaddress.ip_address(address.split("%", 1)[0])
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    if ip.version == 6 and ip not in _UNICAST:
        return False
    return ip.is_global and not any(ip in network for network in _REFUSED if network.version == ip.version)


def check_url(url: str, allowed_hosts: Collection[str]) -> None:
    """Raise `UnsafeWebhookURL` for a URL that no delivery would be made to, as far as its text tells."""
    parts = _split(url)
    if parts.username is not None or parts.password is not None:
        raise _refused("it must not contain a user name or password")
    if parts.fragment:
        raise _refused("it must not contain a fragment (#...)")
    host = parts.hostname or ""
    if is_allowed(host, parts.port, allowed_hosts):
        return
    if parts.scheme != "https":
        raise _refused("it must begin with https://")
    if parts.port not in {None, 443, 80}:
        raise _refused("its port must be 443 or 80")
    if not _may_be_public(host):
        raise _refused("its host must be a public name or address")


def is_allowed(host: str, port: int | None, allowed_hosts: Collection[str]) -> bool:
    """Whether the operator has made an exception for this host, as `host` or as `host:port`."""
    name = host.lower()
    return name in allowed_hosts or f"{name}:{port}" in allowed_hosts


def _split(url: str) -> SplitResult:
    if any(character.isspace() or ord(character) < 0x20 or character == "\\" for character in url):
        raise _refused("it must not contain spaces, control characters or backslashes")
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise _refused("it is not a URL") from None
    if "[" in parts.netloc and not _is_ipv6(parts.hostname or ""):
        raise _refused("what is in brackets is no IPv6 address")
    if parts.scheme not in {"http", "https"}:
        raise _refused("it must begin with https://")
    if not parts.hostname:
        raise _refused("it has no host")
    return parts


def _is_ipv6(text: str) -> bool:
    """Without a zone: `%eth0` names an interface of ours."""
    try:
        return ipaddress.IPv6Address(text).scope_id is None
    except ValueError:
        return False


def _may_be_public(host: str) -> bool:
    """False for what is surely not a public host, in lower case. Other spellings are left to the connection."""
    name = host.rstrip(".")
    if ":" not in name and not _NAME.fullmatch(name):
        return False  # full-width digits and dots turn into addresses; real names have an ASCII form (xn--)
    if name.endswith((".localhost", ".local", ".internal")):
        return False
    if ":" in name or _is_number(name):
        try:
            return is_public(socket.inet_ntoa(socket.inet_aton(name)) if ":" not in name else name)
        except OSError:
            return False
    return "." in name


def _is_number(name: str) -> bool:
    """Whether the resolver would read the name as an IPv4 address: 1.2.3.4, 127.1, 0x7f.1, 0177.1, 2130706433."""
    last = name.rsplit(".", 1)[-1]
    return last.isdigit() or (last.startswith("0x") and all(c in "0123456789abcdef" for c in last[2:]))


def _refused(reason: str) -> UnsafeWebhookURL:
    return UnsafeWebhookURL(f"webhook_url is not allowed: {reason}.")


class GuardedConnector(aiohttp.TCPConnector):
    """Opens sockets to public addresses alone, unless the host is one of the operator's exceptions.

    The check sits where the socket is made, on the address that is then connected to: names and literals
    pass through it, and a name cannot change its mind in between. A name with several addresses is refused
    before that as soon as one of them is not public.
    """

    def __init__(
        self, *, allowed_hosts: Collection[str], resolver: AbstractResolver | None = None, **options: Any
    ) -> None:
        self._lookup = resolver or _Lookup()
        super().__init__(socket_factory=_guarded_socket, resolver=_GuardedLookup(self._lookup), **options)
        self._open_connector = aiohttp.TCPConnector(resolver=self._lookup, **options)
        self._allowed_hosts = allowed_hosts

    async def connect(self, req: Any, traces: Any, timeout: Any) -> Any:  # noqa: ASYNC109 - aiohttp's signature
        if is_allowed(req.url.host or "", req.url.port, self._allowed_hosts):
            return await self._open_connector.connect(req, traces, timeout)
        return await super().connect(req, traces, timeout)

    async def close(self, **options: Any) -> None:
        await self._open_connector.close(**options)
        await super().close(**options)
        await self._lookup.close()


def _guarded_socket(info: tuple[Any, ...]) -> socket.socket:
    family, kind, protocol, _, address = info
    if not is_public(address[0]):
        raise AddressRefused
    opened = socket.socket(family=family, type=kind, proto=protocol)
    opened.setblocking(False)
    return opened


class _GuardedLookup(AbstractResolver):
    """Refuses a name of which any address is not public."""

    def __init__(self, lookup: AbstractResolver) -> None:
        self._lookup = lookup

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        answers = await self._lookup.resolve(host, port, family)
        if not all(is_public(answer["host"]) for answer in answers):
            raise AddressRefused
        return answers

    async def close(self) -> None:
        """Leave the lookup to the connector, which shares it."""


class _Lookup(AbstractResolver):
    """The system's resolver. In the loop's own threads (uvloop has four) slow names would hold up everything."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(LOOKUPS, thread_name_prefix="webhook-dns")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await asyncio.get_running_loop().run_in_executor(
            self._threads,
            lambda: socket.getaddrinfo(
                host, port, type=socket.SOCK_STREAM, family=family, flags=socket.AI_ADDRCONFIG
            ),
        )
        return [
            ResolveResult(
                hostname=host,
                host=str(address[0]),
                port=int(address[1]),
                family=kind,
                proto=proto,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for kind, _, proto, _, address in found
        ]

    async def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
