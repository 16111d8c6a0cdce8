"""The way to PostgreSQL: what counts as away, what is a bug, how long a holder insists, and the clock."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import asyncpg
import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, IntegrityError

from llm_service.absence import is_away, sqlstate_of
from llm_service.db import Database, Limits, insist
from llm_service.errors import ServiceUnavailable

QUICK = Limits(pool=1, connect=1.0, wait=0.2, command=2.0, statement=0.3)


@pytest.fixture
async def quick(settings: Any) -> AsyncIterator[Database]:
    """One connection and short deadlines."""
    opened = Database(settings.database_url, QUICK, name="quick")
    yield opened
    await opened.close()


async def ask(database: Database, sql: str, **values: Any) -> Any:
    async with database.statement() as connection:
        return (await connection.execute(sa.text(sql), values)).scalar()


async def ask_in_transaction(database: Database, sql: str, **values: Any) -> Any:
    async with database.transaction() as connection:
        return (await connection.execute(sa.text(sql), values)).scalar()


async def ask_the_driver(database: Database, sql: str, **values: Any) -> Any:
    rows = await database.fetch(sa.text(sql), values)
    return rows[0][0] if rows else None


WAYS = pytest.mark.parametrize("way", [ask, ask_in_transaction, ask_the_driver])


# --- away -------------------------------------------------------------------------------------------------


@WAYS
async def test_a_refused_connection_is_away(way: Any) -> None:
    listener = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    listener.close()
    await listener.wait_closed()
    nobody = Database(f"postgresql+asyncpg://u:p@127.0.0.1:{port}/db", QUICK, name="nobody")
    with pytest.raises(ServiceUnavailable):
        await way(nobody, "SELECT 1")
    await nobody.close()


@WAYS
async def test_a_server_that_says_nothing_is_away_within_the_limit(way: Any) -> None:
    async def hold(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        held.append(writer)

    held: list[asyncio.StreamWriter] = []
    async with await asyncio.start_server(hold, "127.0.0.1", 0) as listener:
        port = listener.sockets[0].getsockname()[1]
        limits = QUICK._replace(connect=0.2)
        silent = Database(f"postgresql+asyncpg://u:p@127.0.0.1:{port}/db", limits, name="silent")
        async with asyncio.timeout(5):
            with pytest.raises(ServiceUnavailable):
                await way(silent, "SELECT 1")
        await silent.close()
        for writer in held:
            writer.close()
    assert held, "the connection was made"


@WAYS
async def test_a_socket_that_is_not_there_is_away(way: Any, tmp_path: Any) -> None:
    nowhere = Database(f"postgresql+asyncpg://u@/db?host={tmp_path}&port=5432", QUICK, name="nowhere")
    with pytest.raises(ServiceUnavailable):
        await way(nowhere, "SELECT 1")
    await nowhere.close()


@WAYS
async def test_a_statement_that_takes_too_long_is_away(quick: Database, way: Any) -> None:
    with pytest.raises(ServiceUnavailable) as caught:
        await way(quick, "SELECT pg_sleep(30)")
    assert caught.value.__cause__ is not None
    assert sqlstate_of(caught.value.__cause__) == "57014"
    assert await way(quick, "SELECT 1") == 1, "the connection is fit for the next statement"


@WAYS
async def test_a_server_that_hangs_in_a_statement_is_away(settings: Any, way: Any) -> None:
    """The server's own limit does not help when the server is what hangs: the client's does."""
    limits = QUICK._replace(command=0.2, statement=60.0)
    hanging = Database(settings.database_url, limits, name="hanging")
    async with asyncio.timeout(5):
        with pytest.raises(ServiceUnavailable):
            await way(hanging, "SELECT pg_sleep(30)")
    assert await way(hanging, "SELECT 1") == 1
    await hanging.close()


@WAYS
async def test_an_exhausted_pool_is_away(quick: Database, way: Any) -> None:
    async with quick.statement():
        with pytest.raises(ServiceUnavailable):
            await way(quick, "SELECT 1")
    assert await way(quick, "SELECT 1") == 1


@WAYS
async def test_a_terminated_backend_is_away_once(quick: Database, way: Any, sql: asyncpg.Connection) -> None:
    backend = await way(quick, "SELECT pg_backend_pid()")
    await sql.execute("SELECT pg_terminate_backend($1, 5000)", backend)
    with pytest.raises(ServiceUnavailable):
        await way(quick, "SELECT 1")
    assert await way(quick, "SELECT pg_backend_pid()") != backend


@WAYS
async def test_a_backend_terminated_in_a_statement_is_away(
    settings: Any, way: Any, sql: asyncpg.Connection
) -> None:
    patient = Database(settings.database_url, QUICK._replace(statement=30.0, command=30.0), name="patient")
    backend = await way(patient, "SELECT pg_backend_pid()")
    asked = asyncio.create_task(way(patient, "SELECT pg_sleep(30)"))
    busy = "SELECT state = 'active' FROM pg_stat_activity WHERE pid = $1"
    async with asyncio.timeout(5):
        while not await sql.fetchval(busy, backend):
            await asyncio.sleep(0.005)
    await sql.execute("SELECT pg_terminate_backend($1)", backend)
    with pytest.raises(ServiceUnavailable):
        await asked
    await patient.close()


@WAYS
async def test_a_read_only_server_is_away(quick: Database, way: Any) -> None:
    async with quick.statement() as connection:
        await connection.execute(sa.text("SET default_transaction_read_only = on"))
    with pytest.raises(ServiceUnavailable) as caught:
        await way(quick, "CREATE TABLE nothing ()")
    assert caught.value.__cause__ is not None
    assert sqlstate_of(caught.value.__cause__) == "25006"


@WAYS
async def test_a_lock_that_is_not_given_is_away(settings: Any, way: Any, sql: asyncpg.Connection) -> None:
    waiting = Database(settings.database_url, QUICK._replace(statement=30.0, command=30.0), name="waiting")
    async with sql.transaction():
        await sql.execute("LOCK TABLE llm_workflow_jobs")
        with pytest.raises(ServiceUnavailable) as caught:
            await way(waiting, "SELECT count(*) FROM llm_workflow_jobs")
    assert caught.value.__cause__ is not None
    assert sqlstate_of(caught.value.__cause__) == "55P03"
    assert await way(waiting, "SELECT count(*) FROM llm_workflow_jobs") == 0
    await waiting.close()


@WAYS
async def test_a_full_server_is_away(way: Any, settings: Any, sql: asyncpg.Connection) -> None:
    await sql.execute("DROP ROLE IF EXISTS crowded")
    await sql.execute("CREATE ROLE crowded LOGIN PASSWORD 'crowded' CONNECTION LIMIT 0")
    try:
        url = sa.make_url(settings.database_url).set(username="crowded", password="crowded")
        full = Database(url.render_as_string(hide_password=False), QUICK, name="full")
        with pytest.raises(ServiceUnavailable) as caught:
            await way(full, "SELECT 1")
        assert caught.value.__cause__ is not None
        assert sqlstate_of(caught.value.__cause__) == "53300"
        await full.close()
    finally:
        await sql.execute("DROP ROLE crowded")


# --- bugs -------------------------------------------------------------------------------------------------


@WAYS
@pytest.mark.parametrize(
    ("statement", "state"),
    [
        ("SELEC 1", "42601"),
        ("SELECT nothing", "42703"),
        ("SELECT * FROM nothing", "42P01"),
        ("SELECT 1 / 0", "22012"),
        ("SELECT CAST('x' AS integer)", "22P02"),
    ],
)
async def test_a_wrong_statement_stays_what_it_is(
    quick: Database, way: Any, statement: str, state: str
) -> None:
    with pytest.raises((DBAPIError, asyncpg.PostgresError)) as caught:
        await way(quick, statement)
    assert sqlstate_of(caught.value) == state
    assert not is_away(caught.value)
    assert await way(quick, "SELECT 1") == 1


@WAYS
@pytest.mark.parametrize("value", ["text", 2**70, object()])
async def test_a_value_of_the_wrong_type_stays_what_it_is(quick: Database, way: Any, value: object) -> None:
    with pytest.raises((DBAPIError, asyncpg.PostgresError)) as caught:
        await way(quick, "SELECT CAST(:value AS integer)", value=value)
    assert not is_away(caught.value)


async def test_a_broken_constraint_stays_what_it_is(quick: Database) -> None:
    with pytest.raises(IntegrityError):
        await ask(quick, "INSERT INTO llm_workflow_jobs (id) VALUES (gen_random_uuid())")


async def test_after_a_restart_one_statement_fails_and_not_one_for_each_connection(
    settings: Any, sql: asyncpg.Connection
) -> None:
    many = Database(settings.database_url, QUICK._replace(pool=4), name="many")
    await asyncio.gather(*(ask_the_driver(many, "SELECT pg_sleep(0.05)") for _ in range(4)))
    await sql.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name ~ 'many'"
    )
    with pytest.raises(ServiceUnavailable):
        await ask_the_driver(many, "SELECT 1")
    assert [await ask_the_driver(many, "SELECT 1") for _ in range(8)] == [1] * 8
    await many.close()


@WAYS
async def test_who_asked_first_is_served_first(quick: Database, way: Any) -> None:
    """One that asks again at once stands behind those who wait already."""
    served: list[str] = []

    async def ask_twice(name: str) -> None:
        for _ in range(2):
            await way(quick, "SELECT pg_sleep(0.005)")
            served.append(name)

    await asyncio.gather(*(ask_twice(name) for name in "abcdef"))
    assert "".join(served) == "abcdef" * 2


async def test_an_error_of_the_caller_passes_and_rolls_back(quick: Database, sql: asyncpg.Connection) -> None:
    async def fail() -> None:
        async with quick.transaction() as connection:
            await connection.execute(sa.text("CREATE TABLE never_kept ()"))
            raise KeyError

    with pytest.raises(KeyError):
        await fail()
    assert await sql.fetchval("SELECT to_regclass('never_kept')") is None


async def test_a_cancelled_statement_gives_its_connection_back(quick: Database) -> None:
    asked = asyncio.create_task(ask(quick, "SELECT pg_sleep(0.2)"))
    await asyncio.sleep(0)
    while quick.engine.pool.checkedout() == 0:  # type: ignore[attr-defined]
        await asyncio.sleep(0.005)
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    assert await ask(quick, "SELECT 1") == 1


# --- insisting --------------------------------------------------------------------------------------------


async def test_insisting_repeats_until_the_write_is_done(quick: Database, sql: asyncpg.Connection) -> None:
    tries = 0

    async def write() -> Any:
        nonlocal tries
        tries += 1
        backend = await ask(quick, "SELECT pg_backend_pid()")
        if tries < 3:
            await sql.execute("SELECT pg_terminate_backend($1, 5000)", backend)
            return await ask(quick, "SELECT 'lost'")
        return await ask(quick, "SELECT 'written'")

    assert await insist(write) == "written"
    assert tries == 3


async def test_insisting_ends_with_its_cancellation(quick: Database) -> None:
    tries = 0

    async def write() -> None:
        nonlocal tries
        tries += 1
        await ask(quick, "SELECT 1")

    async with quick.statement():  # the pool is exhausted
        insisting = asyncio.create_task(insist(write))
        async with asyncio.timeout(10):
            while tries < 2:
                await asyncio.sleep(0.005)
        assert not insisting.done()
        insisting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await insisting
        tries_then = tries
    assert await ask(quick, "SELECT 1") == 1
    assert tries == tries_then


async def test_insisting_does_not_repeat_a_bug(quick: Database) -> None:
    tries = 0

    async def write() -> None:
        nonlocal tries
        tries += 1
        await ask(quick, "SELECT nothing")

    with pytest.raises(DBAPIError):
        await insist(write)
    assert tries == 1


# --- connections and the clock ----------------------------------------------------------------------------


async def test_every_connection_has_its_limits_and_its_name(quick: Database) -> None:
    async def shown(name: str) -> Any:
        return await ask(quick, f"SHOW {name}")

    assert await shown("statement_timeout") == "300ms"
    assert await shown("lock_timeout") == "1s"
    assert await shown("idle_in_transaction_session_timeout") == "10s"
    assert await shown("timezone") == "UTC"
    assert await shown("application_name") == "llm-service quick"


async def test_the_clock_is_the_databases(quick: Database, sql: asyncpg.Connection) -> None:
    first = await quick.clock.now()
    there: datetime = await sql.fetchval("SELECT clock_timestamp()")
    second = await quick.clock.now()
    assert first.tzinfo is UTC
    assert abs((there - first).total_seconds()) < 0.5
    assert first <= second
    assert abs((second - there).total_seconds()) < 0.5


async def test_the_clock_does_not_ask_each_time(quick: Database) -> None:
    await quick.clock.now()
    async with quick.statement():  # the only connection: asking would fail
        before = await quick.clock.now()
        for _ in range(1000):
            after = await quick.clock.now()
    assert before < after


async def test_a_clock_that_was_never_set_says_that_the_database_is_away(quick: Database) -> None:
    async with quick.statement():
        with pytest.raises(ServiceUnavailable):
            await quick.clock.now()
    assert await quick.clock.now() is not None
