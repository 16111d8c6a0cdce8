"""GET /jobs against plain SQL over the same rows, and GET /jobs/{job_id}."""

import asyncio
import random
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import httpx
import pytest
from tests.conftest import AUTH, with_name
from tests.in_process import serving
from tests.statements import statements_sent

from llm_service.db import Database
from llm_service.jobs.crowds import Crowds
from llm_service.jobs.filters import JobFilters
from llm_service.jobs.store import listing
from llm_service.settings import load_settings

ROWS = 3_000
SEED = 20_260_301
USERS = [UUID(int=0x4000_8000 + number) for number in range(4)]
NAMES = ["jane_smith", "jöran", "o'brien", "%"]
ACTIONS = ["generate mission report", "generate contacts", "x" * 255]
WORKFLOWS = ["completion", "mission_generation", "emergency_contacts"]
CODES = ["ModelTimeout", "WorkerLost"]
COLUMNS = (
    "id workflow_name status user_id username action error_code error_message priority input_data result created_at "
    "queued_at started_at completed_at duration_ms"
).split()

SUMMARY_FIELDS = (
    "job_id workflow_name status priority user_id username action created_at started_at completed_at duration_ms "
    "error_message error_code attempt webhook_state total_tokens cost_usd"
).split()
DETAIL_FIELDS = (
    "input_data result queued_at max_attempts debug_mode webhook_url webhook attempts llm_calls usage"
).split()

STATUSES = {
    "all": "true",
    "running": "status IN ('pending', 'processing')",
    "completed": "status = 'completed'",
    "failed": "status = 'failed'",
    "pending": "status = 'pending'",
    "processing": "status = 'processing'",
    "cancelled": "status = 'cancelled'",
}
LIMITS = {
    None: "true",
    "": "true",
    "1": "true",
    "25": "true",
    "200": "true",
    "500": "true",
    "Today": "created_at >= date_trunc('day', now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC'",
    "7 Days": "created_at >= now() - interval '168 hours'",
    "30 Days": "created_at >= now() - interval '720 hours'",
}
FILTERS: list[dict[str, str]] = [
    {},
    {"user_id": str(USERS[1])},
    {"username": NAMES[2]},
    {"action": ACTIONS[0], "workflow_name": WORKFLOWS[1]},
    {"username": NAMES[1], "error_code": CODES[0]},
    {"username": "nobody"},
]


def rows_of_a_year(now: datetime) -> list[tuple[Any, ...]]:
    """Most of them recent; several with one created_at, so that the id has to decide."""
    dice = random.Random(SEED)
    rows = []
    for _ in range(ROWS):
        age = dice.choice([timedelta(hours=1), timedelta(days=1), timedelta(days=10), timedelta(days=365)])
        # On odd minutes only: rows stay clear of each other and of now, so that passing seconds matter little.
        minutes = 2 * dice.randrange(1, max(int(age / timedelta(minutes=2)), 2))
        created = now - timedelta(minutes=minutes + 1)
        status = dice.choice(["completed"] * 6 + ["failed", "failed", "cancelled", "pending", "processing"])
        user = dice.choice([None, 0, 1, 2, 3])
        failed = status == "failed"
        rows.append(
            (
                UUID(int=dice.getrandbits(128)),
                dice.choice(WORKFLOWS),
                status,
                None if user is None else USERS[user],
                None if user is None else NAMES[user],
                dice.choice([None, *ACTIONS]),
                dice.choice(CODES) if failed else None,
                "It took too long." if failed else None,
                dice.randrange(11),
                '{"prompt": "x"}',
                '{"text": "y"}' if status == "completed" else None,
                created,
                created,
                None if status == "pending" else created,
                created if status in {"completed", "failed", "cancelled"} else None,
                1_500 if status == "completed" else None,
            )
        )
    return rows


@pytest.fixture(scope="module")
def name_of_the_list(runner_number: int) -> str:
    return f"llm_test_list_{runner_number}"


@pytest.fixture(scope="module")
def filled_url(server_url: str, name_of_the_list: str) -> Any:
    """A database with a few thousand jobs, made once."""
    import asyncio

    async def make() -> None:
        server = await asyncpg.connect(server_url)
        await server.execute(f"DROP DATABASE IF EXISTS {name_of_the_list} WITH (FORCE)")
        await server.execute(f"CREATE DATABASE {name_of_the_list} TEMPLATE llm_test_template")
        await server.close()
        connection = await asyncpg.connect(url)
        now = await connection.fetchval("SELECT date_trunc('minute', now()) + interval '30 seconds'")
        await connection.copy_records_to_table(
            "llm_workflow_jobs", records=rows_of_a_year(now), columns=COLUMNS
        )
        await connection.close()

    async def drop() -> None:
        server = await asyncpg.connect(server_url)
        await server.execute(f"DROP DATABASE IF EXISTS {name_of_the_list} WITH (FORCE)")
        await server.close()

    url = with_name(server_url, name_of_the_list)
    asyncio.run(make())
    yield url
    asyncio.run(drop())


@pytest.fixture
async def oracle(filled_url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(filled_url)
    yield connection
    await connection.close()


@pytest.fixture
async def filled(filled_url: str, environment: dict[str, str]) -> AsyncIterator[httpx.AsyncClient]:
    """The app over the filled database."""
    async with serving(load_settings(environment | {"DATABASE_URL": filled_url})) as client:
        yield client


async def ask(client: httpx.AsyncClient, **params: str | int | None) -> dict[str, Any]:
    given = {name: value for name, value in params.items() if value is not None}
    answer = await client.get("/api/v1/jobs", params=given, headers=AUTH)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


async def matches(oracle: asyncpg.Connection, *conditions: str, **equal: str) -> list[str]:
    """The ids that plain SQL finds, newest first."""
    wanted = [*conditions, *(f"{name}::text = ${number}" for number, name in enumerate(equal, 1))]
    found = await oracle.fetch(
        f"SELECT id FROM llm_workflow_jobs WHERE {' AND '.join(wanted or ['true'])} ORDER BY created_at DESC, id DESC",
        *equal.values(),
    )
    return [str(row["id"]) for row in found]


def ids(body: dict[str, Any]) -> list[str]:
    return [job["job_id"] for job in body["jobs"]]


# --- the list ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit_results", LIMITS)
async def test_the_list_is_what_plain_sql_finds(
    filled: httpx.AsyncClient, oracle: asyncpg.Connection, limit_results: str | None
) -> None:
    """Every status with this limit_results and some filters: rows, order, total, limit, offset."""
    in_force = int(limit_results) if limit_results and limit_results.isdigit() else 37
    for status, state in STATUSES.items():
        for filters in FILTERS:
            expected = await matches(oracle, state, LIMITS[limit_results], **filters)
            for offset in (0,) if filters else (0, 11):
                body = await ask(
                    filled,
                    status=status,
                    limit_results=limit_results,
                    limit=37,
                    offset=offset or None,
                    **filters,
                )
                asked = (status, limit_results, filters, offset)
                assert ids(body) == expected[offset : offset + in_force], asked
                assert body["total"] == len(expected), asked
                assert (body["limit"], body["offset"]) == (in_force, offset), asked
                assert body["total_is_capped"] is False
                assert (body["next_cursor"] is not None) == (offset + in_force < len(expected)), asked


async def test_the_rows_reach_over_every_window(oracle: asyncpg.Connection) -> None:
    """Otherwise the comparison above would prove little."""
    sizes = [len(await matches(oracle, LIMITS[window])) for window in ("Today", "7 Days", "30 Days", None)]
    assert sizes == sorted(set(sizes))
    assert sizes[0] > 0 or datetime.now(UTC).hour == 0
    assert await oracle.fetchval("SELECT count(*) > count(DISTINCT created_at) FROM llm_workflow_jobs")


async def test_status_filter_is_another_name_of_status(filled: httpx.AsyncClient) -> None:
    assert await ask(filled, status_filter="failed") == await ask(filled, status="failed")


async def test_nothing_given_is_the_newest_50_of_all(
    filled: httpx.AsyncClient, oracle: asyncpg.Connection
) -> None:
    body = await ask(filled)
    assert ids(body) == (await matches(oracle))[:50]
    assert (body["total"], body["limit"], body["offset"]) == (ROWS, 50, 0)


async def test_a_range_holds_its_start_and_not_its_end(
    filled: httpx.AsyncClient, oracle: asyncpg.Connection
) -> None:
    moments = await oracle.fetch(
        "SELECT DISTINCT created_at FROM llm_workflow_jobs ORDER BY 1 DESC OFFSET 300 LIMIT 30"
    )
    end, start = moments[0]["created_at"], moments[-1]["created_at"]
    body = await ask(filled, created_after=start.isoformat(), created_before=end.isoformat(), limit=200)
    expected = await matches(oracle, f"created_at >= '{start}' AND created_at < '{end}'")
    assert ids(body) == expected
    times = {datetime.fromisoformat(job["created_at"]) for job in body["jobs"]}
    assert (min(times), end in times) == (start, False)
    one = await ask(
        filled,
        created_after=start.isoformat(),
        created_before=(start + timedelta(microseconds=1)).isoformat(),
    )
    assert {datetime.fromisoformat(job["created_at"]) for job in one["jobs"]} == {start}


async def test_total_can_be_left_out_or_asked_exactly(filled: httpx.AsyncClient) -> None:
    without = await ask(filled, count="none", status="failed")
    exact = await ask(filled, count="exact", status="failed")
    assert (without["total"], without["total_is_capped"]) == (None, False)
    assert without["jobs"] == exact["jobs"]
    assert exact == await ask(filled, count="capped", status="failed")


async def test_past_the_end_there_are_no_rows_and_the_same_total(filled: httpx.AsyncClient) -> None:
    body = await ask(filled, offset=100_000)
    assert (body["jobs"], body["total"], body["offset"], body["next_cursor"]) == ([], ROWS, 100_000, None)


# --- the cursor -------------------------------------------------------------------------------------------


async def walk(client: httpx.AsyncClient, **params: Any) -> AsyncIterator[dict[str, Any]]:
    body = await ask(client, **params)
    yield body
    while body["next_cursor"] is not None:
        body = await ask(client, cursor=body["next_cursor"], **params)
        yield body


@pytest.mark.parametrize(
    "question",
    [
        {"limit": 200},
        {"limit": 7, "status": "running", "user_id": str(USERS[0])},
        {"limit_results": "333"},
        {"limit": 50, "limit_results": "30 Days", "status": "failed"},
    ],
    ids=str,
)
async def test_the_cursor_leads_to_every_row_exactly_once(
    filled: httpx.AsyncClient, oracle: asyncpg.Connection, question: dict[str, Any]
) -> None:
    equal = {"user_id": question["user_id"]} if "user_id" in question else {}
    expected = await matches(
        oracle,
        STATUSES[question.get("status", "all")],
        LIMITS.get(question.get("limit_results"), "true"),
        **equal,
    )
    pages = [page async for page in walk(filled, **question)]
    assert [job_id for page in pages for job_id in ids(page)] == expected
    assert {page["total"] for page in pages} == {len(expected)}


async def test_rows_that_arrive_meanwhile_neither_repeat_nor_hide_a_row(
    client: httpx.AsyncClient, sql: asyncpg.Connection
) -> None:
    now = await sql.fetchval("SELECT now()")

    async def insert(created_at: datetime) -> str:
        job_id = uuid4()
        await sql.execute(
            "INSERT INTO llm_workflow_jobs (id, workflow_name, input_data, created_at) VALUES ($1, 'completion', '{}', $2)",
            job_id,
            created_at,
        )
        return str(job_id)

    before = {await insert(now - timedelta(seconds=number // 3)) for number in range(60)}
    seen: list[str] = []
    async for page in walk(client, limit=7):
        seen += ids(page)
        await insert(now + timedelta(seconds=len(seen)))
    assert len(seen) == len(set(seen)), "a row came twice"
    assert set(seen) == before


async def test_offset_pages_agree_with_cursor_pages(filled: httpx.AsyncClient) -> None:
    first = await ask(filled, limit=40, status="completed")
    by_cursor = await ask(filled, limit=40, status="completed", cursor=first["next_cursor"])
    by_offset = await ask(filled, limit=40, status="completed", offset=40)
    assert by_cursor["jobs"] == by_offset["jobs"]
    assert (by_cursor["offset"], by_offset["offset"]) == (0, 40)


async def test_a_cursor_of_other_filters_is_400(filled: httpx.AsyncClient) -> None:
    cursor = (await ask(filled, status="completed"))["next_cursor"]
    answer = await filled.get("/api/v1/jobs", params={"status": "failed", "cursor": cursor}, headers=AUTH)
    assert (answer.status_code, answer.json()["detail"]["error"]) == (400, "InvalidCursor")


# --- the total's cap --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "capped", "exact"),
    [(9_999, (9_999, False), 9_999), (10_000, (10_000, False), 10_000), (10_001, (10_000, True), 10_001)],
)
async def test_a_total_is_exact_up_to_10000_and_capped_past_it(
    database: Database, sql: asyncpg.Connection, rows: int, capped: tuple[int, bool], exact: int
) -> None:
    await sql.execute(
        "INSERT INTO llm_workflow_jobs (id, workflow_name, username, input_data) "
        "SELECT gen_random_uuid(), 'completion', 'jane', '{}' FROM generate_series(1, $1)",
        rows,
    )
    for filters in (JobFilters(), JobFilters(username="jane", status="pending")):
        page = await listing.page(database, filters, limit=1)
        assert (page.total, page.total_is_capped) == capped
        page = await listing.page(database, filters, limit=1, count="exact")
        assert (page.total, page.total_is_capped) == (exact, False)
    assert (await listing.page(database, JobFilters(username="joe"), limit=1)).total == 0


async def test_what_has_far_more_matches_is_not_counted_each_time_and_less_is(
    database: Database, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "COUNT_CAP", 10)
    await sql.execute(
        "INSERT INTO llm_workflow_jobs (id, workflow_name, status, input_data) "
        "SELECT gen_random_uuid(), 'completion', CASE WHEN n <= 21 THEN 'failed' ELSE 'completed' END, '{}' "
        "FROM generate_series(1, 41) AS n"
    )
    crowds = Crowds()

    async def look(status: str, **options: Any) -> tuple[Any, int]:
        with statements_sent(database.engine.sync_engine) as sent:
            page = await listing.page(database, JobFilters(status=status), limit=5, crowds=crowds, **options)
            await asyncio.sleep(0)  # the driver tells in the next turn of the loop
        return (page.total, page.total_is_capped), sum("count(" in statement for statement in sent)

    assert await look("failed") == ((10, True), 1)
    assert await look("failed") == ((10, True), 0), "21 matches are more than twice the cap"
    assert await look("failed", count="exact") == ((21, False), 1)
    assert await look("completed") == ((10, True), 1)
    assert await look("completed") == ((10, True), 1), "20 matches may soon be fewer"
    await sql.execute(
        "DELETE FROM llm_workflow_jobs WHERE status = 'failed' AND id NOT IN "
        "(SELECT id FROM llm_workflow_jobs WHERE status = 'failed' LIMIT 3)"
    )
    assert await look("failed") == ((3, False), 0), "what is shown is all there is"


# --- the wire ---------------------------------------------------------------------------------------------


async def test_a_summary_has_the_fields_of_the_contract_and_no_payload(filled: httpx.AsyncClient) -> None:
    body = await ask(filled, limit=200)
    assert list(body) == ["jobs", "total", "limit", "offset", "total_is_capped", "next_cursor"]
    for job in body["jobs"]:
        assert list(job) == SUMMARY_FIELDS


async def test_a_list_never_asks_for_payloads() -> None:
    statement = str(listing.page_query(JobFilters(username="jane"), limit=5))
    assert not {"input_data", "result", "webhook_secret"} & set(
        statement.replace(",", " ").replace(".", " ").split()
    )


async def test_values_arrive_as_they_are_stored_and_times_with_an_offset(
    filled: httpx.AsyncClient, oracle: asyncpg.Connection
) -> None:
    for job in (await ask(filled, limit=200))["jobs"]:
        row = await oracle.fetchrow("SELECT * FROM llm_workflow_jobs WHERE id = $1", UUID(job["job_id"]))
        for name in (
            "workflow_name",
            "status",
            "priority",
            "username",
            "action",
            "duration_ms",
            "error_message",
            "error_code",
        ):
            assert job[name] == row[name]
        assert job["user_id"] == (str(row["user_id"]) if row["user_id"] else None)
        for name in ("created_at", "started_at", "completed_at"):
            moment = job[name] and datetime.fromisoformat(job[name])
            assert moment == row[name]
            assert moment is None or moment.utcoffset() == timedelta(0)


async def test_a_job_from_before_username_and_action_lists_with_nulls(
    client: httpx.AsyncClient, sql: asyncpg.Connection
) -> None:
    """As migration 0002 and its followers leave a row that was written before them."""
    await sql.execute(
        "INSERT INTO llm_workflow_jobs (id, workflow_name, status, input_data) VALUES ($1, 'completion', 'completed', '{}')",
        UUID(int=1),
    )
    (job,) = (await ask(client))["jobs"]
    for name in (
        "user_id",
        "username",
        "action",
        "started_at",
        "completed_at",
        "duration_ms",
        "error_message",
        "error_code",
        "total_tokens",
        "cost_usd",
    ):
        assert job[name] is None, name
    assert (job["priority"], job["attempt"], job["webhook_state"]) == (0, 0, "none")
    detail = (await client.get(f"/api/v1/jobs/{UUID(int=1)}", headers=AUTH)).json()
    assert (detail["queued_at"], detail["result"], detail["input_data"]) == (None, None, {})
    assert (await ask(client, username="")) == await ask(client)


@pytest.mark.parametrize(
    ("params", "status", "code"),
    [
        ({"limit_results": "0"}, 400, "InvalidLimitResults"),
        ({"limit_results": "٢٥"}, 400, "InvalidLimitResults"),
        ({"status": "done"}, 400, "InvalidStatusFilter"),
        ({"user_id": "42"}, 400, "InvalidUserID"),
        ({"cursor": "x"}, 400, "InvalidCursor"),
        ({"created_after": "yesterday"}, 400, "InvalidTimeRange"),
        ({"status": "failed", "status_filter": "completed"}, 400, "ConflictingFilters"),
        ({"limit": "201"}, 422, "ValidationError"),
        ({"offset": "-1"}, 422, "ValidationError"),
        ({"action": "\x00"}, 422, "ValidationError"),
        ({"count": "all"}, 422, "ValidationError"),
    ],
)
async def test_a_wrong_parameter_has_its_own_error(
    client: httpx.AsyncClient, params: dict[str, str], status: int, code: str
) -> None:
    answer = await client.get("/api/v1/jobs", params=params, headers=AUTH)
    assert (answer.status_code, answer.json()["detail"]["error"]) == (status, code), answer.text
    assert answer.json()["detail"]["message"]


async def test_a_plus_and_a_percent_20_are_both_the_space_of_7_days(client: httpx.AsyncClient) -> None:
    for text in ("7+Days", "7%20Days"):
        answer = await client.get(f"/api/v1/jobs?limit_results={text}", headers=AUTH)
        assert answer.status_code == 200, answer.text


async def test_bytes_that_are_no_utf_8_find_nothing_and_break_nothing(client: httpx.AsyncClient) -> None:
    answer = await client.get("/api/v1/jobs?username=%ff%fe", headers=AUTH)
    assert answer.status_code in {200, 422}, answer.text


# --- one job ----------------------------------------------------------------------------------------------


async def test_both_names_of_one_job_answer_alike(
    filled: httpx.AsyncClient, oracle: asyncpg.Connection
) -> None:
    for job_id in (await matches(oracle))[:20]:
        one = await filled.get(f"/api/v1/jobs/{job_id}", headers=AUTH)
        assert one.status_code == 200, one.text
        assert one.content == (await filled.get(f"/api/v1/status/{job_id}", headers=AUTH)).content
        assert list(one.json())[: len(SUMMARY_FIELDS)] == SUMMARY_FIELDS
        assert set(DETAIL_FIELDS) <= set(one.json())
        assert "webhook_secret" not in one.json()


async def test_the_list_and_the_job_agree(filled: httpx.AsyncClient) -> None:
    for job in (await ask(filled, limit=30))["jobs"]:
        detail = (await filled.get(f"/api/v1/jobs/{job['job_id']}", headers=AUTH)).json()
        assert {name: detail[name] for name in SUMMARY_FIELDS} == job


async def test_an_id_that_names_no_job_is_404(client: httpx.AsyncClient) -> None:
    names = [str(UUID(int=7)), "42", "not-a-uuid", "0" * 500, "%00", "%F0%9F%99%82", "null"]
    for path in (f"/api/v1/{route}/{name}" for route in ("jobs", "status") for name in names):
        answer = await client.get(path, headers=AUTH)
        assert (answer.status_code, answer.json()["detail"]["error"]) == (404, "JobNotFound"), (
            f"{path}: {answer.text}"
        )
        assert len(answer.json()["detail"]["job_id"]) <= 100


async def test_without_the_secret_there_is_nothing_to_read(client: httpx.AsyncClient) -> None:
    wrong: list[dict[str, str]] = [{}, {"X-API-Secret": ""}, {"X-API-Secret": "wrong"}]
    for path in ("/jobs", f"/jobs/{UUID(int=7)}", f"/status/{UUID(int=7)}", "/jobs?limit_results=0"):
        answers = [await client.get(f"/api/v1{path}", headers=headers) for headers in wrong]
        assert [answer.status_code for answer in answers] == [401] * 3, path
        assert {answer.json()["detail"]["error"] for answer in answers} == {"InvalidAPISecret"}
