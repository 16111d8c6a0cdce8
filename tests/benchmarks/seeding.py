"""Fills the table of either side with finished jobs, inside PostgreSQL.

5 % were created since midnight (UTC), the rest evenly over the 90 days before; 10 % failed; 1 % belong to one
user, the rest to 2,000 others; 20 actions. At 10,000 rows every list that is measured fills its page.
"""

import asyncpg

USER = "99999999-0000-4000-8000-999999999999"
ACTION = "generate mission report"

# What only our table has.
OURS = {
    "error_code": "CASE WHEN failed THEN 'ModelRejected' END",
    "attempt": "1",
    "claims": "1",
    "updated_at": "at",
    "run_after": "at",
    "webhook_state": "'delivered'",
    "total_tokens": "100",
}
PEERS = {
    "attempts": "1",
    "webhook_status": "'delivered'",
    "webhook_attempts": "1",
    "prompt_tokens": "60",
    "completion_tokens": "40",
}
BOTH = {
    "id": """(lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') || '7' || substr(hash, 1, 3)
              || '8' || substr(hash, 4, 15))::uuid""",
    "workflow_name": "'completion'",
    "priority": "n % 11",
    "webhook_url": "'https://client.example.com/hooks/llm'",
    "debug_mode": "false",
    "user_id": f"""CASE WHEN n % 100 = 7 THEN '{USER}'
                   ELSE lpad(to_hex(n % 2000), 8, '0') || '-0000-4000-8000-000000000000' END::uuid""",
    "username": "CASE WHEN n % 100 = 7 THEN 'jane_smith' ELSE 'user' || n % 2000 END",
    "action": f"CASE WHEN n % 20 = 3 THEN '{ACTION}' ELSE 'activity ' || n % 20 END",
    "status": "CASE WHEN failed THEN 'failed' WHEN n % 50 = 0 THEN 'cancelled' ELSE 'completed' END",
    "input_data": """jsonb_build_object('system', 'Be brief.',
                     'prompt', repeat('Summarise the day''s mission for the crew. ', 4) || n)""",
    "result": """CASE WHEN NOT failed THEN
                 jsonb_build_object('text', repeat('The crew checked every sensor and rested. ', 4)) END""",
    "error_message": "CASE WHEN failed THEN 'The model refused to answer.' END",
    "created_at": "at",
    "queued_at": "at",
    "started_at": "at + interval '0.1 s'",
    "completed_at": "at + interval '3 s'",
    "duration_ms": "2900",
}
INDEXES = """
    SELECT indexrelid::regclass::text AS name, pg_get_indexdef(indexrelid) AS definition
      FROM pg_index WHERE indrelid = 'llm_workflow_jobs'::regclass AND NOT indisunique"""


async def seed(sql: asyncpg.Connection, rows: int) -> None:
    """Replace all jobs by `rows` new ones. Indexes are built afterwards, as a restore does."""
    await sql.execute("TRUNCATE llm_workflow_jobs CASCADE")
    names = set(
        await sql.fetchval(
            "SELECT array_agg(attname::text) FROM pg_attribute"
            " WHERE attrelid = 'llm_workflow_jobs'::regclass AND attnum > 0"
        )
    )
    columns = {**BOTH, **(OURS if "webhook_state" in names else PEERS)}
    indexes = await sql.fetch(INDEXES)
    for index in indexes:
        await sql.execute(f"DROP INDEX {index['name']}")
    await sql.execute(f"""
        INSERT INTO llm_workflow_jobs ({", ".join(columns)})
        SELECT {", ".join(columns.values())} FROM (
            SELECT n, at, md5(n::text) AS hash, n % 10 = 5 AS failed FROM (
                SELECT n, CASE WHEN n > {rows} * 0.95
                    THEN midnight + (now() - midnight) * ((n - {rows} * 0.95) / ({rows} * 0.05 + 1))
                    ELSE midnight - interval '90 days' * (1 - n / ({rows} * 0.95 + 1)) END AS at
                  FROM generate_series(1, {rows}) AS n,
                       (SELECT date_trunc('day', now(), 'UTC') AS midnight) AS day) AS moments) AS facts""")
    await sql.execute("SET maintenance_work_mem = '512MB'")
    for index in indexes:
        await sql.execute(index["definition"])
    await sql.execute("VACUUM (ANALYZE) llm_workflow_jobs")
    await sql.execute("CHECKPOINT")
