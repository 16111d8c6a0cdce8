"""Runs the migrations against DATABASE_URL, one at a time even when two processes try."""

import asyncio
import os
import sys

import sqlalchemy as sa
from alembic import context
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import NullPool

from llm_service.admin.model import Base
from llm_service.errors import SettingsInvalid
from llm_service.settings import async_database_url

ONE_AT_A_TIME = 0x6C6C6D5F
"""The advisory lock that migrations of this service share."""


def run_offline() -> None:
    """Print the SQL instead of running it (`alembic upgrade head --sql`)."""
    context.configure(dialect_name="postgresql", target_metadata=Base.metadata, literal_binds=True)
    with context.begin_transaction():
        context.run_migrations()


async def run_online(url: str) -> None:
    engine = create_async_engine(url, poolclass=NullPool)
    try:
        async with engine.connect() as connection:
            await take_turn(connection)
            # A migration that can't have its lock gives up rather than queue all traffic behind it.
            await connection.execute(sa.text("SET lock_timeout = '5s'"))
            await connection.commit()
            await connection.run_sync(migrate)
    finally:
        await engine.dispose()


async def take_turn(connection: AsyncConnection) -> None:
    """Ask again rather than wait inside a statement: CREATE INDEX CONCURRENTLY waits for every open one."""
    lock = sa.select(sa.func.pg_try_advisory_lock(ONE_AT_A_TIME))
    while not (await connection.execute(lock)).scalar_one():
        await connection.commit()
        await asyncio.sleep(0.2)


def migrate(connection: sa.Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        transaction_per_migration=True,
        compare_server_default=True,
    )
    with context.begin_transaction():
        context.run_migrations()


if context.is_offline_mode():
    run_offline()
else:
    try:
        database_url = async_database_url(os.environ.get("DATABASE_URL", ""))
    except SettingsInvalid as error:
        sys.exit(f"{error.message}")
    asyncio.run(run_online(database_url))
