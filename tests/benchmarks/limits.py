"""What the servers do for one Python process with nothing of a service in between."""

import asyncio
import json
import time
from uuid import uuid4

import asyncpg
import redis.asyncio as aioredis
from tests.benchmarks.load import body
from tests.benchmarks.report import percentile

PAGE = """
    SELECT id, workflow_name, status, priority, user_id, username, action, created_at, started_at, completed_at,
           duration_ms, error_message
      FROM llm_workflow_jobs ORDER BY created_at DESC, id DESC LIMIT 50"""


async def inserts_per_s(database_url: str, *, connections: int, rows: int, seconds: float) -> float:
    """Durable rows a second: each connection commits `rows` at a time, again and again."""
    pool = await asyncpg.create_pool(database_url, min_size=connections, max_size=connections)
    await pool.execute(
        "CREATE TABLE bench_rows (id uuid PRIMARY KEY, made_at timestamptz DEFAULT now(), body jsonb)"
    )
    content, done, deadline = json.dumps(body(1, "http://127.0.0.1/hook")), 0, time.monotonic() + seconds

    async def client() -> None:
        nonlocal done
        statement = "INSERT INTO bench_rows (id, body) SELECT unnest($1::uuid[]), unnest($2::jsonb[])"
        while time.monotonic() < deadline:
            await pool.execute(statement, [uuid4() for _ in range(rows)], [content] * rows)
            done += rows

    await asyncio.gather(*(client() for _ in range(connections)))
    await pool.execute("DROP TABLE bench_rows")
    await pool.close()
    return done / seconds


async def page_ms(sql: asyncpg.Connection, times: int = 300) -> float:
    """The median of reading the 50 newest jobs, without a count."""
    took = []
    for _ in range(times):
        start = time.perf_counter()
        await sql.fetch(PAGE)
        took.append(1000 * (time.perf_counter() - start))
    return percentile(took, 0.5)


async def ring_ms(redis_url: str, times: int = 300) -> float:
    """The median of LPUSH by one client to the end of BRPOP in another."""
    pusher, popper = (aioredis.Redis.from_url(redis_url) for _ in range(2))
    took = []
    for _ in range(times):
        popped = asyncio.ensure_future(popper.brpop(["bench:bell"], timeout=5))
        await asyncio.sleep(0.002)
        start = time.perf_counter()
        await pusher.lpush("bench:bell", 1)
        await popped
        took.append(1000 * (time.perf_counter() - start))
    await pusher.aclose()
    await popper.aclose()
    return percentile(took, 0.5)
