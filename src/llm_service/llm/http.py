"""One POST to a model server: a total deadline, patience with 429 and 5xx, and none with other refusals."""

import asyncio
import re
from collections.abc import Mapping
from functools import cached_property
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies_environment, proxy_bypass

import aiohttp
import msgspec
import stamina

from llm_service.errors import ModelRejected, ModelTimeout, ModelUnavailable
from llm_service.llm.model import OnWait, Wait, unheard
from llm_service.llm.pace import Pace, spread
from llm_service.retry_after import retry_after_s

MAX_BODY = 5 * 1024 * 1024
MAX_FAILURES = 3
"""How often a server error or a broken connection is tried again; a 429 is until the deadline."""
TOO_MANY = 429
RETRYABLE = frozenset({408, 409, 425, TOO_MANY})
"""Beside every 5xx."""
SPENT = "insufficient_quota"
"""What OpenAI calls an account without money, also by a 429: waiting does not fill it."""
MAX_RETRY_AFTER_S = 60.0
NAME = re.compile(r"[A-Za-z0-9_.\[\]/-]{1,64}")
"""What a provider's code looks like. Anything else may be the caller's words."""
MIN_KEY = 8


def open_session() -> aiohttp.ClientSession:
    """The connections to model servers. Closing it is the caller's.

    Not aiohttp's `trust_env`: beside the proxies it takes passwords from ~/.netrc and sends them along.
    """
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, ttl_dns_cache=300),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=10),
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
    )


def proxy_for(url: str) -> str | None:
    """The proxy that HTTP_PROXY, HTTPS_PROXY and NO_PROXY name for a URL."""
    parts = urlsplit(url)
    if proxy_bypass(parts.netloc.rpartition("@")[2]):
        return None
    return getproxies_environment().get(parts.scheme)


class _Transient(Exception):
    """A failure that may pass. `wait_s` is what the server asked for."""

    def __init__(self, message: str, *, limited: bool = False, wait_s: float | None = None) -> None:
        super().__init__(message)
        self.limited = limited
        self.wait_s = wait_s


class ModelServer:
    """A model API at one base URL. `timeout_s` bounds a call in all: waiting, retries and a slow drip included.

    `first_wait_s` is the wait before the first retry; later ones double it.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        url: str,
        headers: Mapping[str, str],
        *,
        timeout_s: float,
        label: str,
        first_wait_s: float = 0.25,
    ) -> None:
        self._session = session
        self._url = url
        self._headers = {**headers, "Content-Type": "application/json"}
        self._keys = [word for value in headers.values() for word in value.split() if len(word) >= MIN_KEY]
        self._timeout_s = timeout_s
        self._label = label
        self._first_wait_s = first_wait_s
        self._pace = Pace()

    @cached_property
    def _proxy(self) -> str | None:
        return proxy_for(self._url)

    async def post(self, payload: Mapping[str, Any], on_wait: OnWait = unheard) -> tuple[Any, int]:
        """Return the decoded answer and how many tries failed before it; tell of each failure that is waited for.

        Raises `ModelUnavailable`, `ModelRejected` or `ModelTimeout`; no message repeats key or prompt.
        """
        body = msgspec.json.encode(payload)
        patience = _Patience(on_wait)
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._post_patiently(body, patience), patience.failures
        except TimeoutError:
            last = f" (last: {patience.last})" if patience.last else ""
            raise ModelTimeout(f"{self._label} did not answer within {self._timeout_s:g} s{last}.") from None
        except _Transient as error:
            raise ModelUnavailable(f"{self._label} is unavailable: {error}.") from None

    async def _post_patiently(self, body: bytes, patience: "_Patience") -> Any:
        try:
            return await self._post_once(body)
        except _Transient as error:
            first: _Transient | None = error
        # The machinery of retries costs as much as a tenth of a call: it is set up for those that fail.
        async for attempt in stamina.retry_context(
            on=patience.wait,
            attempts=None,
            timeout=None,
            wait_initial=self._first_wait_s,
            wait_max=20.0,
            wait_jitter=2 * self._first_wait_s,
        ):
            with attempt:
                if first is not None:
                    failed, first = first, None
                    raise failed
                return await self._post_once(body)
        raise AssertionError("stamina yields until it returns or raises")

    async def _post_once(self, body: bytes) -> Any:
        try:
            async with (
                self._pace.place() as begun_in,
                self._session.post(
                    self._url,
                    data=body,
                    headers=self._headers,
                    allow_redirects=False,
                    proxy=self._proxy,
                ) as response,
            ):
                text = await _read_capped(response)
                if not 200 <= response.status < 300:
                    refusal = self._refusal(response, text)
                    if isinstance(refusal, _Transient) and refusal.limited:
                        self._pace.note_refusal(begun_in, refusal.wait_s)
                    raise refusal
                self._pace.note_answer()
        except ValueError as error:  # aiohttp refuses to send it: a wrong URL, two kinds of credentials
            raise ModelRejected(
                f"{self._label}: the request can't be sent ({type(error).__name__})."
            ) from error
        except (aiohttp.ClientError, OSError) as error:
            raise _Transient(f"the connection failed ({type(error).__name__})") from error
        try:
            return msgspec.json.decode(text)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise _Transient("it answered something that is not JSON") from None

    def _refusal(self, response: aiohttp.ClientResponse, text: bytes) -> Exception:
        status = response.status
        reason = self._reason(text)
        said = f"HTTP {status}" + (f", {reason}" if reason else "")
        if (status in RETRYABLE or status >= 500) and SPENT not in reason:
            wait_s = retry_after_s(response.headers.get("Retry-After"), cap_s=MAX_RETRY_AFTER_S)
            return _Transient(said, limited=status == TOO_MANY, wait_s=wait_s)
        return ModelRejected(f"{self._label} refused the request: {said}.")

    def _reason(self, text: bytes) -> str:
        """The provider's codes for its refusal. Its message is left out: it may quote the prompt or the key."""
        try:
            error = msgspec.json.decode(text)["error"]
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, LookupError, TypeError):
            return ""
        if not isinstance(error, dict):
            return ""
        said = [error.get(name) for name in ("type", "code", "param")]
        names = [name for name in said if isinstance(name, str) and NAME.fullmatch(name)]
        return ", ".join(name for name in names if not any(key in name for key in self._keys))


class _Patience:
    """Decides on each failure whether to wait, and how long."""

    def __init__(self, on_wait: OnWait) -> None:
        self.failures = 0
        self.last = ""
        self._on_wait = on_wait
        self._unlimited = 0

    def wait(self, error: Exception) -> bool | float:
        if not isinstance(error, _Transient):
            return False
        self.last = str(error)
        if not error.limited:
            self._unlimited += 1
            if self._unlimited > MAX_FAILURES:
                return False
        self.failures += 1
        # Also for "at once" the growing wait, not a busy loop.
        seconds = spread(error.wait_s) if error.wait_s else None
        self._on_wait(Wait(self.failures, self.last, seconds))
        return seconds or True


async def _read_capped(response: aiohttp.ClientResponse) -> bytes:
    chunks: list[bytes] = []
    size = 0
    async for chunk in response.content.iter_any():
        size += len(chunk)
        if size > MAX_BODY:
            response.close()
            raise _Transient("its answer is larger than 5 MB")
        chunks.append(chunk)
    return b"".join(chunks)
