"""One POST to a receiver: a total deadline, no redirect, a small part of the answer."""

import asyncio
import time
from collections.abc import Collection, Mapping
from typing import Any

import aiohttp
import msgspec

from llm_service.retry_after import retry_after_s
from llm_service.webhooks.address import AddressRefused, GuardedConnector
from llm_service.webhooks.schedule import MAX_RETRY_AFTER_S

DEADLINE_S = 15.0
MAX_READ = 64 * 1024
MAX_KEPT = 1024


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What a try came to. `status` is None where no answer came, and `error` says why not."""

    status: int | None = None
    latency_ms: int
    text: str | None = None
    error: str | None = None
    retry_after_s: float | None = None
    blocked: bool = False

    @property
    def delivered(self) -> bool:
        return self.status is not None and 200 <= self.status < 300


def open_session(allowed_hosts: Collection[str], **options: Any) -> aiohttp.ClientSession:
    """A session for receivers alone: guarded, without cookies, and blind to proxies in the environment.

    It has no limits of its own: a try that waited for a connection here would use its deadline up unsent.
    `options` are further ones of the connector.
    """
    return aiohttp.ClientSession(
        connector=GuardedConnector(allowed_hosts=allowed_hosts, limit=0, use_dns_cache=False, **options),
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
        timeout=aiohttp.ClientTimeout(total=None),
        auto_decompress=False,
    )


async def post(
    session: aiohttp.ClientSession,
    url: str,
    body: bytes,
    headers: Mapping[str, str],
    *,
    deadline_s: float = DEADLINE_S,
) -> Answer:
    """Send the body once. Never raises for what a receiver does or fails to do."""
    started = time.monotonic()

    def failed(error: str, *, blocked: bool = False) -> Answer:
        return Answer(latency_ms=_since(started), error=error, blocked=blocked)

    try:
        async with (
            asyncio.timeout(deadline_s),
            session.post(url, data=body, headers=headers, allow_redirects=False) as response,
        ):
            text = await _read_start(response)
            return Answer(
                status=response.status,
                latency_ms=_since(started),
                text=text,
                error=None if 200 <= response.status < 300 else f"HTTP {response.status}",
                retry_after_s=retry_after_s(response.headers.get("Retry-After"), cap_s=MAX_RETRY_AFTER_S),
            )
    except TimeoutError:
        return failed(f"no answer within {deadline_s:g} s")
    except (aiohttp.ClientError, OSError, ValueError) as error:
        if _is_refusal(error):
            return failed("address not allowed", blocked=True)
        return failed(f"the connection failed ({type(error).__name__})")


async def _read_start(response: aiohttp.ClientResponse) -> str:
    """Read at most 64 KB, so that a short answer leaves the connection clean, and keep the first 1 KB as text."""
    kept = b""
    size = 0
    async for chunk in response.content.iter_any():
        size += len(chunk)
        if len(kept) < MAX_KEPT:
            kept += chunk[: MAX_KEPT - len(kept)]
        if size >= MAX_READ:
            response.close()
            break
    return kept.decode(errors="replace").replace("\x00", "\ufffd")


def _is_refusal(error: BaseException) -> bool:
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, AddressRefused):
            return True
        seen = getattr(seen, "os_error", None) or seen.__cause__
    return False


def _since(started: float) -> int:
    return int((time.monotonic() - started) * 1000)
