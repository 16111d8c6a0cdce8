"""Servers that are there and are not the right ones: the process says in one line what to do. Ids: docs/security.md."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import asyncpg
import httpx
import pytest
from sqlalchemy.engine import make_url
from tests.acceptance.processes import Process, bare_environment, free_port
from tests.acceptance.test_canaries import wait_until_alive
from tests.conftest import AUTH

SUBMISSION = {"workflow_name": "completion", "input_data": {"prompt": "Say hello."}}
PASSWORD = "canary-operators-password"


class Api:
    """An API process with some of its environment wrong."""

    def __init__(self, environment: dict[str, str], log: Path, stack: ExitStack) -> None:
        self._environment = environment
        self._log = log
        self._stack = stack

    def start(self, **wrong: str) -> httpx.Client:
        port = free_port()
        environment = bare_environment(**self._environment | wrong, PORT=str(port))
        self._stack.enter_context(Process(["llm-service", "api"], environment, self._log))
        wait_until_alive(port)
        return self._stack.enter_context(
            httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=AUTH, timeout=30)
        )

    def said(self) -> list[str]:
        """What is on the lines of the log; each of them is JSON, and none holds a traceback or a password."""
        output = self._log.read_text()
        assert "Traceback" not in output
        assert PASSWORD not in output
        return [json.loads(line)["event"] for line in output.splitlines()]


@pytest.fixture
def api(environment: dict[str, str], tmp_path: Path) -> Iterator[Api]:
    with ExitStack() as stack:
        yield Api(environment, tmp_path / "api.log", stack)


def named(url: str, **parts: str) -> str:
    return make_url(url).set(**parts).render_as_string(hide_password=False)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("parts", "line"),
    [
        ({"database": "no_such_database"}, "PostgreSQL has no database of the name in DATABASE_URL"),
        ({"username": "nobody_at_all"}, "PostgreSQL refuses user or password of DATABASE_URL"),
    ],
)
def test_a_database_url_that_is_refused_is_503_and_one_line(
    api: Api, environment: dict[str, str], parts: dict[str, str], line: str
) -> None:
    url = named(environment["DATABASE_URL"], password=PASSWORD, **parts)
    client = api.start(DATABASE_URL=url)
    for answer in (client.post("/api/v1/workflow", json=SUBMISSION), client.get("/health/ready")):
        assert answer.status_code == 503
    assert sum(text.startswith(line) for text in api.said()) == 1


def test_a_database_without_schema_is_503_and_told_to_be_migrated(api: Api, empty_database_url: str) -> None:
    client = api.start(DATABASE_URL=empty_database_url)
    for method, path in (("POST", "/api/v1/workflow"), ("GET", "/api/v1/jobs"), ("GET", "/health/ready")):
        answer = client.request(method, path, json=SUBMISSION if method == "POST" else None)
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "2"), path
    said = api.said()
    assert "The database has no schema yet: run `make migrate` (or `llm-service migrate`)." in said
    assert "the database lacks a table or column: run `llm-service migrate`" in said


def test_a_worker_refuses_a_database_without_schema(
    environment: dict[str, str], empty_database_url: str, tmp_path: Path
) -> None:
    wrong = bare_environment(**environment | {"DATABASE_URL": empty_database_url})
    with Process(["llm-service", "worker"], wrong, tmp_path / "worker.log") as worker:
        assert worker.wait() == 2
        assert worker.output().splitlines() == [
            "The database at DATABASE_URL has no schema yet: run `llm-service migrate` (or `make migrate`)."
        ]


async def test_a_newer_schema_is_named_and_served(api: Api, sql: asyncpg.Connection) -> None:
    version = await sql.fetchval("SELECT version_num FROM alembic_version")
    await sql.execute("UPDATE alembic_version SET version_num = '9999'")
    try:
        client = api.start()
        assert client.post("/api/v1/workflow", json=SUBMISSION).status_code == 202
    finally:
        await sql.execute("UPDATE alembic_version SET version_num = $1", version)
    [line] = [text for text in api.said() if "9999" in text]
    assert version in line
    assert "start the version that fits" in line


def test_a_database_that_takes_no_writes_is_503_for_submits_and_still_read(
    api: Api, environment: dict[str, str], server_url: str
) -> None:
    from tests.conftest import run_sql

    name = make_url(environment["DATABASE_URL"]).database
    run_sql(server_url, f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    try:
        client = api.start()
        assert client.post("/api/v1/workflow", json=SUBMISSION).status_code == 503
        assert client.get("/api/v1/jobs").status_code == 200
    finally:
        run_sql(server_url, f"ALTER DATABASE {name} RESET default_transaction_read_only")
    assert sum(text.startswith("PostgreSQL takes no writes here") for text in api.said()) == 1


def speaking(answer: bytes, stack: ExitStack) -> int:
    """A server that says the same to everything; its port."""
    listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                try:
                    while connection.recv(65_536):
                        connection.sendall(answer)
                except OSError:
                    continue

    threading.Thread(target=serve, daemon=True).start()
    return int(listener.getsockname()[1])


@pytest.mark.parametrize(
    ("answer", "line"),
    [
        (b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n", "What answers at REDIS_URL is no Redis"),
        (b"-NOAUTH Authentication required.\r\n" * 4, "Redis refuses user or password of REDIS_URL, or wants one"),
        (b"-WRONGPASS invalid username-password pair\r\n" * 4, "Redis refuses user or password of REDIS_URL, or wants one"),
    ],
    ids=["an HTTP server", "a password is wanted", "a wrong password"],
)  # fmt: skip
def test_a_redis_url_that_leads_elsewhere_is_one_line_and_jobs_are_accepted(
    api: Api, answer: bytes, line: str
) -> None:
    with ExitStack() as stack:
        client = api.start(REDIS_URL=f"redis://:{PASSWORD}@127.0.0.1:{speaking(answer, stack)}/0")
        assert client.post("/api/v1/workflow", json=SUBMISSION).status_code == 202
        assert client.get("/health").json()["redis"] == "down"
    assert sum(text.startswith(line) for text in api.said()) == 1
