"""The schema's steps: forward, back, by every way of starting them, and two at once."""

import asyncio
import os
import shutil
import sys
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import httpx
import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.ext.asyncio import create_async_engine
from tests.conftest import AUTH
from tests.in_process import serving

from llm_service.admin.model import Base
from llm_service.migrations import project_root
from llm_service.settings import async_database_url, load_settings

ROOT = project_root()
CONFIG = ROOT / "pyproject.toml"
REVISIONS = ["0001", "0002", "0003", "0004", "0005", "0006", "0007", "0008", "0009", "0010", "0011", "0012"]
TABLES = {
    "llm_workflow_jobs",
    "llm_job_attempts",
    "llm_workers",
    "llm_idempotency_keys",
    "llm_calls",
    "llm_webhook_deliveries",
    "llm_webhook_attempts",
    "llm_admin_sessions",
    "llm_admin_audit",
    "llm_admin_logins",
}
OF_BEFORE = UUID("00000000-0000-4000-8000-000000000001")
OF_NOW = UUID("00000000-0000-7000-8000-000000000002")
PROGRAMS = Path(sys.executable).parent


async def run(*words: str | Path, url: str, cwd: Path = ROOT, wrong: bool = False) -> str:
    """A command as an operator types it, with DATABASE_URL; its whole output."""
    process = await asyncio.create_subprocess_exec(
        *words,
        cwd=cwd,
        env={**os.environ, "DATABASE_URL": url},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output = (await process.communicate())[0].decode()
    assert (process.returncode != 0) == wrong, output
    return output


async def migrate(url: str, revision: str, config: Path = CONFIG) -> None:
    """The same in this process, which is ten times as fast: "head", "base", "+1", "-1" or a revision."""
    back = revision in {"base", "-1"} or (revision.isdigit() and revision < (await version(url) or ""))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATABASE_URL", url)
        await asyncio.to_thread(
            command.downgrade if back else command.upgrade, Config(toml_file=config), revision
        )


async def version(url: str) -> str | None:
    connection = await asyncpg.connect(url)
    try:
        found: str | None = await connection.fetchval("SELECT version_num FROM alembic_version")
    except asyncpg.UndefinedTableError:
        return None
    finally:
        await connection.close()
    return found


async def fetch(url: str, statement: str, *values: Any) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(url)
    found: list[asyncpg.Record] = await connection.fetch(statement, *values)
    await connection.close()
    return found


async def tables(url: str) -> set[str]:
    rows = await fetch(url, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    return {row["tablename"] for row in rows} - {"alembic_version"}


async def shape(url: str) -> list[tuple[Any, ...]]:
    """Every column, index, constraint and setting of our tables, as PostgreSQL describes them."""
    rows = await fetch(
        url,
        """
        SELECT table_name || '.' || column_name, data_type || coalesce(character_maximum_length::text, '')
               || is_nullable || coalesce(column_default, '') FROM information_schema.columns WHERE table_schema = 'public'
        UNION ALL SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'
        UNION ALL SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE connamespace = 'public'::regnamespace
        UNION ALL SELECT relname, reloptions::text FROM pg_class WHERE relnamespace = 'public'::regnamespace
                                                                   AND reloptions IS NOT NULL
        UNION ALL SELECT stxname, stxkind::text FROM pg_statistic_ext
        ORDER BY 1, 2
        """,
    )
    return [tuple(row) for row in rows]


# --- there and back ---------------------------------------------------------------------------------------


async def test_every_step_goes_forward_and_back_and_forward_to_the_same_schema(
    empty_database_url: str,
) -> None:
    url = empty_database_url
    forward = {}
    for revision in REVISIONS:
        await migrate(url, "+1")
        assert await version(url) == revision
        forward[revision] = await shape(url)
    assert await tables(url) == TABLES
    for revision in reversed(REVISIONS[:-1]):
        await migrate(url, "-1")
        assert await version(url) == revision
        assert await shape(url) == forward[revision], (
            f"the way down to {revision} leaves another schema than the way up"
        )
    await migrate(url, "-1")
    assert await tables(url) == set()
    assert await version(url) is None
    await migrate(url, "head")
    assert await shape(url) == forward[REVISIONS[-1]]


async def test_rows_outlive_the_way_down_and_up_again(
    empty_database_url: str, environment: dict[str, str]
) -> None:
    """A job keeps what each older schema has room for; it is lost only where its table is."""
    url = empty_database_url
    await migrate(url, "0001")
    await fetch(
        url,
        "INSERT INTO llm_workflow_jobs (id, workflow_name, status, input_data, result, webhook_secret, created_at) "
        """VALUES ($1, 'completion', 'completed', '{"prompt": "x"}', '{"text": "y"}', $2, '2025-01-01T00:00:00Z')""",
        OF_BEFORE,
        "s" * 255,
    )
    await migrate(url, "head")
    await fetch(
        url,
        "INSERT INTO llm_workflow_jobs (id, workflow_name, status, input_data, username, action, error_code, webhook_secret, "
        """total_tokens) VALUES ($1, 'completion', 'failed', '{"prompt": "z"}', 'jane', 'test', 'ModelTimeout', $2, 5)""",
        OF_NOW,
        "sealed" * 60,
    )
    await fetch(
        url,
        "INSERT INTO llm_calls (job_id, claim, step, provider, model) VALUES ($1, 1, 's', 'p', 'm')",
        OF_NOW,
    )
    await fetch(
        url,
        "INSERT INTO llm_webhook_deliveries (job_id, webhook_id, event) VALUES ($1, 'msg_1', 'e')",
        OF_NOW,
    )
    await fetch(url, "INSERT INTO llm_webhook_attempts (job_id, number) VALUES ($1, 1)", OF_NOW)
    await migrate(url, "0002")
    rows = await fetch(
        url, "SELECT id, username, action, length(webhook_secret) AS room FROM llm_workflow_jobs ORDER BY 1"
    )
    assert [tuple(row) for row in rows] == [(OF_BEFORE, None, None, 255), (OF_NOW, "jane", "test", None)]
    await migrate(url, "0001")
    await migrate(url, "head")

    async with serving(load_settings(environment | {"DATABASE_URL": url})) as client:
        answer = await client.get("/api/v1/jobs", headers=AUTH)
        jobs = {job["job_id"]: job for job in answer.json()["jobs"]}
        assert list(jobs) == [str(OF_NOW), str(OF_BEFORE)], "newest first"
        for job in jobs.values():
            assert {
                job[name] for name in ("username", "action", "error_code", "total_tokens", "cost_usd")
            } == {None}
            assert (job["attempt"], job["webhook_state"]) == (0, "none")
        detail = await one(client, OF_BEFORE)
        assert (detail["input_data"], detail["result"]) == ({"prompt": "x"}, {"text": "y"})
        assert (detail["status"], detail["max_attempts"], detail["llm_calls"]) == ("completed", 3, [])
    await migrate(url, "base")
    assert await tables(url) == set()


async def one(client: httpx.AsyncClient, job_id: UUID) -> dict[str, Any]:
    detail: dict[str, Any] = (await client.get(f"/api/v1/jobs/{job_id}", headers=AUTH)).json()
    return detail


async def test_a_pending_job_of_the_service_before_is_found_by_the_workers(empty_database_url: str) -> None:
    """Nobody tells Redis about it: the reconciler's question must match its defaults."""
    from llm_service.db import WORKER_LIMITS, Database
    from llm_service.jobs.store import upkeep

    await migrate(empty_database_url, "0001")
    await fetch(
        empty_database_url,
        "INSERT INTO llm_workflow_jobs (id, workflow_name, input_data) VALUES ($1, 'completion', '{}')",
        OF_BEFORE,
    )
    await migrate(empty_database_url, "head")
    database = Database(async_database_url(empty_database_url), WORKER_LIMITS, name="test")
    assert [hint.job_id for hint in await upkeep.due(database, unseen_s=60)] == [OF_BEFORE]
    await database.close()


# --- what the files say -----------------------------------------------------------------------------------


def test_the_steps_are_numbered_in_one_line() -> None:
    steps = ScriptDirectory.from_config(Config(toml_file=CONFIG)).walk_revisions()
    assert [step.revision for step in steps] == REVISIONS[::-1]


@pytest.mark.parametrize("revision", REVISIONS)
def test_each_step_has_a_down_sql_that_can_be_repeated(revision: str) -> None:
    (folder,) = (path for path in (ROOT / "alembic/versions").glob(f"{revision}_*") if path.is_dir())
    statements = (folder / "down.sql").read_text()
    for line in statements.splitlines():
        if "DROP " in line:
            assert " IF EXISTS " in line, line
    assert "DROP " in statements
    step = folder.with_suffix(".py").read_text()
    assert "down.sql" in step.split("def upgrade")[0]
    assert "DOWN.read_text()" in step.split("def downgrade")[1]
    assert "import llm_service" not in step
    assert "from llm_service" not in step


async def test_a_step_runs_its_down_sql(empty_database_url: str, tmp_path: Path) -> None:
    """A copy of the project with another down.sql: what stands there happens."""
    shutil.copytree(ROOT / "alembic", tmp_path / "alembic", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(CONFIG, tmp_path)
    for down in (tmp_path / "alembic/versions").glob("*/down.sql"):
        down.write_text(
            f"CREATE TABLE IF NOT EXISTS went_down_{down.parent.name[:4]} ();\n{down.read_text()}"
        )
    for revision in ("head", "base"):
        await migrate(empty_database_url, revision, tmp_path / "pyproject.toml")
    assert await tables(empty_database_url) == {f"went_down_{revision}" for revision in REVISIONS}


async def test_the_models_match_the_migrated_schema(database_url: str) -> None:
    """What `alembic check` asks, and that it would notice."""

    def differences(connection: sa.Connection, metadata: sa.MetaData) -> list[Any]:
        context = MigrationContext.configure(connection, opts={"compare_server_default": True})
        return list(compare_metadata(context, metadata))

    other = sa.MetaData()
    for table in Base.metadata.sorted_tables:
        table.to_metadata(other)
    other.tables["llm_workflow_jobs"].append_column(sa.Column("forgotten", sa.Text))
    sa.Index("idx_forgotten", other.tables["llm_workflow_jobs"].c.worker)
    engine = create_async_engine(async_database_url(database_url))
    async with engine.connect() as connection:
        assert await connection.run_sync(differences, Base.metadata) == []
        found = await connection.run_sync(differences, other)
    await engine.dispose()
    assert {difference[0] for difference in found} == {"add_column", "add_index"}


async def test_the_indexes_are_those_of_the_models_to_the_letter(database_url: str) -> None:
    """compare_metadata does not look at the order within an index, nor at its condition."""
    migrated = {
        row["indexname"]: row["indexdef"]
        for row in await fetch(
            database_url,
            "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public' AND indexname LIKE 'idx_%'",
        )
    }
    await fetch(database_url, "DROP SCHEMA IF EXISTS from_models CASCADE")
    await fetch(database_url, "CREATE SCHEMA from_models")
    engine = create_async_engine(
        async_database_url(database_url), execution_options={"schema_translate_map": {None: "from_models"}}
    )
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    await engine.dispose()
    declared = {
        row["indexname"]: row["indexdef"].replace("from_models.", "public.")
        for row in await fetch(
            database_url,
            "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'from_models' AND indexname LIKE 'idx_%'",
        )
    }
    await fetch(database_url, "DROP SCHEMA from_models CASCADE")
    assert migrated == declared


async def test_username_and_action_say_what_they_are(database_url: str) -> None:
    comments = {
        row["attname"]: row["comment"]
        for row in await fetch(
            database_url,
            "SELECT attname, col_description(attrelid, attnum) AS comment FROM pg_attribute "
            "WHERE attrelid = 'llm_workflow_jobs'::regclass AND attname IN ('username', 'action')",
        )
    }
    assert set(comments) == {"username", "action"}
    assert "Who asked" in comments["username"]
    assert "What the user was doing" in comments["action"]


# --- every way of starting --------------------------------------------------------------------------------


def test_the_folder_does_not_shadow_the_library() -> None:
    assert not (ROOT / "alembic" / "__init__.py").exists()


@pytest.mark.parametrize(
    "start",
    [
        [PROGRAMS / "alembic"],
        [sys.executable, "-m", "alembic"],
        [PROGRAMS / "alembic", "-c", CONFIG],
        [sys.executable, "-m", "alembic", "-c", CONFIG],
    ],
    ids=["alembic", "python -m alembic", "alembic -c", "python -m alembic -c"],
)
async def test_alembic_starts(empty_database_url: str, tmp_path: Path, start: list[str | Path]) -> None:
    await run(*start, "upgrade", "0002", url=empty_database_url, cwd=tmp_path if CONFIG in start else ROOT)
    assert await version(empty_database_url) == "0002"


async def test_migrate_and_rollback_start_from_anywhere(empty_database_url: str, tmp_path: Path) -> None:
    await run(PROGRAMS / "llm-service", "migrate", url=empty_database_url, cwd=tmp_path)
    assert await version(empty_database_url) == REVISIONS[-1]
    await run(sys.executable, "-m", "llm_service", "rollback", url=empty_database_url, cwd=tmp_path)
    assert await version(empty_database_url) == REVISIONS[-2]


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("", ["alembic", "upgrade", "head"]),
        ("", ["llm-service", "migrate"]),
        ("mysql://h/d", ["llm-service", "migrate"]),
    ],
    ids=str,
)
async def test_a_wrong_url_is_one_line_that_names_the_variable(url: str, words: list[str]) -> None:
    output = await run(PROGRAMS / words[0], *words[1:], url=url, wrong=True)
    assert "DATABASE_URL" in output
    assert len(output.strip().splitlines()) == 1, output


async def test_alembic_check_finds_nothing_to_do(database_url: str) -> None:
    assert "No new upgrade operations" in await run(PROGRAMS / "alembic", "check", url=database_url)


async def test_the_steps_can_be_printed_as_sql() -> None:
    script = await run(PROGRAMS / "alembic", "upgrade", "head", "--sql", url="")
    assert "CREATE TABLE llm_workflow_jobs" in script
    assert "CREATE INDEX CONCURRENTLY" in script


# --- two at once ------------------------------------------------------------------------------------------


async def test_migrations_that_start_at_once_take_turns(empty_database_url: str) -> None:
    """Both are held back until both are there; the one that waits must not be in the way of CONCURRENTLY."""
    holder = await asyncpg.connect(empty_database_url)
    await holder.execute("SELECT pg_advisory_lock($1)", 0x6C6C6D5F)
    both = asyncio.gather(
        *(run(PROGRAMS / "llm-service", "migrate", url=empty_database_url) for _ in range(2))
    )
    others = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    while await holder.fetchval(others) < 2:
        await asyncio.sleep(0.02)
    assert await version(empty_database_url) is None, "nothing happens without the lock"
    await holder.close()
    outcomes: list[Any] = await both
    assert [outcome for outcome in outcomes if isinstance(outcome, BaseException)] == []
    assert await version(empty_database_url) == REVISIONS[-1]
    assert await tables(empty_database_url) == TABLES


async def test_migrating_again_changes_nothing(empty_database_url: str) -> None:
    await migrate(empty_database_url, "head")
    once = await shape(empty_database_url)
    await migrate(empty_database_url, "head")
    assert await shape(empty_database_url) == once


async def test_an_index_build_that_was_cut_off_can_be_repeated(empty_database_url: str) -> None:
    await migrate(empty_database_url, "0006")
    await fetch(
        empty_database_url, "CREATE INDEX idx_workflow_jobs_action_build ON llm_workflow_jobs (worker)"
    )
    await fetch(empty_database_url, "CREATE INDEX idx_workflow_jobs_status ON llm_workflow_jobs (worker)")
    await migrate(empty_database_url, "head")
    found = await fetch(
        empty_database_url, "SELECT indexname, indexdef FROM pg_indexes WHERE tablename = 'llm_workflow_jobs'"
    )
    indexes = {row["indexname"]: row["indexdef"] for row in found}
    assert "idx_workflow_jobs_action_build" not in indexes
    assert "(status, created_at DESC, id DESC)" in indexes["idx_workflow_jobs_status"]


async def test_a_migration_that_cannot_have_its_lock_gives_up(empty_database_url: str) -> None:
    """It would have all traffic queue behind it."""
    await migrate(empty_database_url, "0001")
    holder = await asyncpg.connect(empty_database_url)
    transaction = holder.transaction()
    await transaction.start()
    await holder.execute("SELECT count(*) FROM llm_workflow_jobs")
    output = await run(PROGRAMS / "alembic", "upgrade", "0002", url=empty_database_url, wrong=True)
    assert "lock timeout" in output
    await transaction.rollback()
    await holder.close()
    await migrate(empty_database_url, "0002")
