"""Wrong passwords: counted by the database, slowed down by its clock, never a lock-out for ever."""

import asyncio
import itertools
import re

import asyncpg
import httpx
import pytest
from tests.admin.conftest import BASE, PASSWORD, csrf_in, log_in
from tests.in_process import serving

from llm_service.admin.errors import TooManyTries
from llm_service.admin.model import Role
from llm_service.admin.sessions import FREE_TRIES, LONGEST_WAIT_S, MANY_TRIES, Sessions, refuse_haste
from llm_service.admin.store import Tries
from llm_service.db import Database
from llm_service.settings import Secret, Settings

AGE = "UPDATE llm_admin_logins SET at = at - make_interval(secs => $1)"


async def count(sql: asyncpg.Connection, table: str) -> int:
    found: int = await sql.fetchval(f"SELECT count(*) FROM llm_admin_{table}")
    return found


async def test_a_wrong_password_opens_nothing(browser: httpx.AsyncClient, sql: asyncpg.Connection) -> None:
    for password in ("a-guess-77", "", PASSWORD[:-1], PASSWORD + "x", PASSWORD.upper(), "ü\ud7ff\U0001f600"):
        await sql.execute("TRUNCATE llm_admin_logins")
        answer = await log_in(browser, password)
        assert answer.status_code == 401
        assert "That is not the password." in answer.text
        assert csrf_in(answer.text), "the form can be sent again at once"
        assert password == "" or password not in answer.text
    assert await count(sql, "sessions") == 0
    assert (await browser.get("/admin/queue")).status_code == 303


async def test_after_several_wrong_passwords_even_the_right_one_has_to_wait(
    browser: httpx.AsyncClient, sql: asyncpg.Connection
) -> None:
    for _ in range(FREE_TRIES):
        assert (await log_in(browser, "wrong")).status_code == 401
    for password in ("wrong", PASSWORD):
        slowed = await log_in(browser, password)
        assert slowed.status_code == 429
        assert 1 <= int(slowed.headers["retry-after"]) <= 2
        assert re.search(r"Too many wrong passwords from your address\. Try again in \d+ s\.", slowed.text)
    assert await count(sql, "logins") == FREE_TRIES, "a try that is not looked at makes the wait no longer"
    await sql.execute(AGE, 1.0)
    assert (await log_in(browser, "wrong")).status_code == 401
    slowed = await log_in(browser, PASSWORD)
    assert slowed.status_code == 429
    await sql.execute(AGE, 2.0)
    assert (await log_in(browser)).status_code == 303
    assert await count(sql, "logins") == 0, "a right password forgets the wrong ones of its peer"


class OneNetwork(httpx.ASGITransport):
    """Each request comes from another address of one IPv6 network."""

    numbers = itertools.count(1)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.client = (f"2001:db8:1:2::{next(self.numbers):x}", 1)
        return await super().handle_async_request(request)


async def test_the_addresses_of_one_network_wait_together(
    settings: Settings, sql: asyncpg.Connection
) -> None:
    async with serving(settings, OneNetwork) as browser:
        browser.base_url = httpx.URL(BASE)
        statuses = [(await log_in(browser, "wrong")).status_code for _ in range(FREE_TRIES + 1)]
    assert statuses == [401] * FREE_TRIES + [429]
    assert await sql.fetchval("SELECT DISTINCT peer FROM llm_admin_logins") == "2001:db8:1:2::"


async def test_nobody_waits_longer_than_a_minute(browser: httpx.AsyncClient, sql: asyncpg.Connection) -> None:
    await sql.execute("INSERT INTO llm_admin_logins (peer) SELECT '127.0.0.1' FROM generate_series(1, 5000)")
    slowed = await log_in(browser)
    assert slowed.status_code == 429
    assert int(slowed.headers["retry-after"]) <= LONGEST_WAIT_S
    await sql.execute(AGE, float(LONGEST_WAIT_S))
    assert (await log_in(browser)).status_code == 303


async def test_one_peer_does_not_wait_for_another(
    browser: httpx.AsyncClient, sql: asyncpg.Connection
) -> None:
    await sql.execute(
        "INSERT INTO llm_admin_logins (peer) SELECT '10.0.0.' || n FROM generate_series(1, 900) n"
    )
    assert (await log_in(browser)).status_code == 303


async def test_under_many_wrong_passwords_from_everywhere_one_of_ones_own_is_enough(
    browser: httpx.AsyncClient, sql: asyncpg.Connection
) -> None:
    await sql.execute(
        "INSERT INTO llm_admin_logins (peer) SELECT '10.0.0.' || n FROM generate_series(1, $1::int) n",
        MANY_TRIES,
    )
    assert (await log_in(browser, "wrong")).status_code == 401
    assert (await log_in(browser)).status_code == 429
    await sql.execute(AGE, float(LONGEST_WAIT_S))
    assert (await log_in(browser)).status_code == 303


async def test_wrong_passwords_are_forgotten_after_a_while(
    browser: httpx.AsyncClient, sql: asyncpg.Connection
) -> None:
    await sql.execute("INSERT INTO llm_admin_logins (peer) SELECT '127.0.0.1' FROM generate_series(1, 50)")
    await sql.execute(AGE, 15 * 60.0)
    assert (await log_in(browser, "wrong")).status_code == 401
    await sql.execute(AGE, 24 * 3600.0)
    await sql.execute("UPDATE llm_admin_logins SET peer = '10.0.0.1'")
    await sql.execute(
        "INSERT INTO llm_admin_sessions (token_hash, expires_at) VALUES ('gone', now() - interval '1 second')"
    )
    await log_in(browser)
    assert (await count(sql, "logins"), await count(sql, "sessions")) == (0, 1), (
        "a login clears away what is past"
    )


async def test_many_tries_at_once_get_no_more_looks_than_one_after_another(
    database: Database, sql: asyncpg.Connection
) -> None:
    sessions = Sessions(database, {Role.ADMIN: Secret(PASSWORD)})

    async def guess(number: int) -> object:
        try:
            return await sessions.open(f"guess {number}", peer="10.0.0.1")
        except TooManyTries:
            return "slowed"

    outcomes = await asyncio.gather(*(guess(number) for number in range(40)))
    assert 1 <= outcomes.count(None) <= FREE_TRIES + 1
    assert outcomes.count("slowed") == 40 - outcomes.count(None)
    assert await count(sql, "logins") == outcomes.count(None)


@pytest.mark.parametrize(
    ("of_peer", "of_all", "quiet_s", "wait_s"),
    [
        (0, 0, 0.0, 0),
        (0, 1000, 0.0, 0),
        (FREE_TRIES - 1, 4, 0.0, 0),
        (FREE_TRIES, 5, 0.0, 1),
        (FREE_TRIES, 5, 1.0, 0),
        (FREE_TRIES + 3, 8, 0.0, 8),
        (FREE_TRIES + 3, 8, 6.6, 1),
        (FREE_TRIES + 6, 11, 0.0, 60),
        (10_000_000, 1000, 0.0, 60),
        (10_000_000, 1000, 60.0, 0),
        (1, MANY_TRIES, 0.0, 60),
        (1, MANY_TRIES - 1, 0.0, 0),
    ],
)
def test_how_long_one_waits(of_peer: int, of_all: int, quiet_s: float, wait_s: int) -> None:
    tries = Tries(of_peer, of_all, quiet_s)
    if wait_s == 0:
        refuse_haste(tries)
        return
    with pytest.raises(TooManyTries) as slowed:
        refuse_haste(tries)
    assert slowed.value.headers == {"Retry-After": str(wait_s)}


async def test_a_password_of_any_bytes_is_compared(database: Database) -> None:
    """compare_digest refuses text that is not ASCII; bytes it takes."""
    passwords = {Role.READER: Secret("žluťoučký kůň 3"), Role.ADMIN: Secret("žluťoučký kůň 1")}
    sessions = Sessions(database, passwords)
    assert await sessions.open("žluťoučký kůň 2", peer="a") is None
    opened = await sessions.open("žluťoučký kůň 1", peer="a")
    assert opened is not None
    token, session = opened
    assert await sessions.find(token) == session
    assert session.role is Role.ADMIN
    assert await sessions.find(token + "x") is None
