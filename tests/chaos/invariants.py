"""The invariants I1 to I12, asked of the database, the API, Redis, the logs and the processes once all is healed.

| id | how it is checked |
|---|---|
| I1 | every 202's id is a row; no row is unfinished; nothing is left `running` in attempts and calls |
| I2 | a trigger writes down every change of a finished job and every ending: none, and one for each job |
| I3 | the trigger again (a lease never passes from hand to hand); no call ended after its attempt was taken away;
       the attempt that ended the job is its last claim |
| I4 | attempt <= max_attempts; attempt = claims that were not released; claims = rows of attempts |
| I5 | the model was asked no more often than the ledger says; each step has one paid answer at most; what was
       asked again is covered by calls that are shown as lost or failed |
| I6 | a finished job with a webhook has one delivery, in an end state; the receiver got it, under one id, and the
       last word is the job's status |
| I7 | one job for each key, one row for each tag; seen by the caller and in the table |
| I8 | created <= started <= completed, duration >= 0 |
| I9 | finished jobs hold no lease; Redis holds nothing of them; no transaction is left open |
| I10 | the caller of the stack complains of each 5xx that is not a 503 with Retry-After |
| I11 | connections within the pools' sum; descriptors and memory of each process bounded |
| I12 | no canary (secrets, prompt) in any answer, log, metric or in Redis |
"""

import contextlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
from tests.chaos.stack import AUTH, CANARIES, FINAL, Stack, until

CONNECTIONS_OF = {"api": 11, "worker": 12}
MOST_DESCRIPTORS = 300
MOST_MEMORY_MB = 300


class Report(msgspec.Struct):
    """What a run came to."""

    acknowledged: int = 0
    unacknowledged_rows: int = 0
    lost: int = 0
    stuck: int = 0
    double: int = 0
    attempts: dict[int, int] = {}
    failed: dict[str, int] = {}
    repeated_calls: int = 0
    drain_s: float = 0.0
    violations: list[str] = []

    def line(self) -> str:
        return (
            f"acknowledged {self.acknowledged} (+{self.unacknowledged_rows} committed without an answer)"
            f" / lost {self.lost} / stuck {self.stuck} / double {self.double} / attempts {self.attempts}"
            f" / failed {self.failed or 0}"
            f" / repeated calls {self.repeated_calls} / drained in {self.drain_s:.1f} s"
        )


async def assert_invariants(stack: Stack, drain_within_s: float = 60.0) -> Report:
    report = await check(stack, drain_within_s)
    assert not report.violations, "\n".join([report.line(), *report.violations[:40]])
    return report


async def check(stack: Stack, drain_within_s: float = 60.0) -> Report:
    """Wait until nothing is to do any more, at most so long, then look at everything."""
    report = Report(acknowledged=len(stack.acked))
    try:
        report.drain_s = await stack.wait_for_all(drain_within_s)
    except AssertionError:
        report.drain_s = drain_within_s
    with contextlib.suppress(AssertionError):
        await _deliveries_done(stack, drain_within_s)
    for examine in (_i1, _i2, _i3, _i4, _i5, _i6, _i7, _i8, _i9, _i11, _i12):
        await examine(stack, report)
    report.violations += stack.complaints
    return report


async def _deliveries_done(stack: Stack, within_s: float) -> None:
    async def none_due() -> bool:
        return not await stack.value(
            "SELECT count(*) FROM llm_webhook_deliveries WHERE next_attempt_at IS NOT NULL"
        )

    await until(none_due, "all webhooks delivered", within_s)


async def _must_be_empty(stack: Stack, report: Report, claim: str, query: str) -> int:
    rows = await stack.rows(query)
    if rows:
        report.violations.append(f"{claim}: {len(rows)}, e.g. {[dict(row) for row in rows[:2]]}")
    return len(rows)


async def _i1(stack: Stack, report: Report) -> None:
    jobs = {
        str(row["id"]): row["status"] for row in await stack.rows("SELECT id, status FROM llm_workflow_jobs")
    }
    lost = [job_id for job_id in stack.acked if job_id not in jobs]
    stuck = [job_id for job_id, status in jobs.items() if status not in FINAL]
    report.lost, report.stuck = len(lost), len(stuck)
    report.unacknowledged_rows = len(jobs.keys() - stack.acked.keys())
    if lost:
        report.violations.append(f"I1 acknowledged and gone: {lost[:3]}")
    if stuck:
        report.violations.append(
            f"I1 never finished: {Counter(jobs[job_id] for job_id in stuck)}, e.g. {stuck[:3]}"
        )
    for table, key in (("llm_job_attempts", "outcome"), ("llm_calls", "status")):
        await _must_be_empty(
            stack,
            report,
            f"I1 still running in {table}",
            f"SELECT t.* FROM {table} t JOIN llm_workflow_jobs j ON j.id = t.job_id"
            f" WHERE t.{key} = 'running' AND j.status NOT IN ('pending', 'processing')",
        )


async def _i2(stack: Stack, report: Report) -> None:
    changed = await _must_be_empty(
        stack,
        report,
        "I2 a finished job was changed",
        "SELECT * FROM chaos_violations WHERE what LIKE '%->%'",
    )
    ended = await _must_be_empty(
        stack,
        report,
        "I2 ended twice",
        "SELECT job_id FROM chaos_endings GROUP BY job_id HAVING count(*) > 1",
    )
    report.double = changed + ended


async def _i3(stack: Stack, report: Report) -> None:
    await _must_be_empty(
        stack, report, "I3 two holders", "SELECT * FROM chaos_violations WHERE what NOT LIKE '%->%'"
    )
    await _must_be_empty(
        stack,
        report,
        "I3 a call was written after its attempt was taken away",
        "SELECT c.job_id, c.step, a.outcome FROM llm_calls c JOIN llm_job_attempts a USING (job_id, claim)"
        " WHERE a.outcome IN ('lost', 'released') AND c.status = 'succeeded' AND c.completed_at > a.ended_at",
    )
    await _must_be_empty(
        stack,
        report,
        "I3 ended by an attempt that is not the last",
        "SELECT j.id FROM llm_workflow_jobs j JOIN llm_job_attempts a ON a.job_id = j.id"
        " WHERE a.outcome IN ('completed', 'failed') AND (a.claim <> j.claims OR a.outcome <> j.status)",
    )


async def _i4(stack: Stack, report: Report) -> None:
    await _must_be_empty(
        stack,
        report,
        "I4 attempts miscounted",
        "SELECT j.id, j.attempt, j.claims, j.max_attempts, array_agg(a.outcome) FROM llm_workflow_jobs j"
        " LEFT JOIN llm_job_attempts a ON a.job_id = j.id GROUP BY j.id"
        " HAVING j.attempt > j.max_attempts OR j.claims <> count(a.claim)"
        " OR j.attempt <> count(a.claim) FILTER (WHERE a.outcome <> 'released')",
    )
    rows = await stack.rows("SELECT attempt, count(*) FROM llm_workflow_jobs GROUP BY 1 ORDER BY 1")
    report.attempts = {row[0]: row[1] for row in rows}
    failures = await stack.rows(
        "SELECT error_code, count(*) FROM llm_workflow_jobs WHERE status = 'failed' GROUP BY 1"
    )
    report.failed = {row[0]: row[1] for row in failures}


async def _i5(stack: Stack, report: Report) -> None:
    rows = await stack.rows(
        "SELECT j.username || ' ' || c.step AS step, sum(1 + c.retries) AS written,"
        " count(*) FILTER (WHERE c.status = 'succeeded') AS paid"
        " FROM llm_calls c JOIN llm_workflow_jobs j ON j.id = c.job_id WHERE j.username IS NOT NULL GROUP BY 1"
    )
    written = {row["step"]: int(row["written"]) for row in rows}
    asked = stack.asked()
    report.repeated_calls = sum(count - 1 for count in asked.values())
    hidden = {step: count for step, count in asked.items() if count > written.get(step, 0)}
    if hidden:
        report.violations.append(f"I5 asked more often than the ledger says: {list(hidden.items())[:3]}")
    if twice := [row["step"] for row in rows if row["paid"] > 1]:
        report.violations.append(f"I5 two paid answers for one step: {twice[:3]}")


async def _i6(stack: Stack, report: Report) -> None:
    await _must_be_empty(
        stack,
        report,
        "I6 a webhook is missing or has not ended",
        "SELECT j.id, j.status, d.state FROM llm_workflow_jobs j LEFT JOIN llm_webhook_deliveries d ON d.job_id = j.id"
        " WHERE j.webhook_url IS NOT NULL AND j.status IN ('completed', 'failed', 'cancelled')"
        " AND (d.state IS NULL OR d.state NOT IN ('delivered', 'exhausted', 'blocked') OR d.state <> j.webhook_state)",
    )
    heard: dict[str, set[tuple[str, str]]] = {}
    for message in stack.receiver.received:
        body = message.json()
        heard.setdefault(body["job_id"], set()).add((message.headers["webhook-id"], body["status"]))
    delivered = await stack.rows(
        "SELECT j.id, j.status, d.webhook_id FROM llm_workflow_jobs j JOIN llm_webhook_deliveries d ON d.job_id = j.id"
        " WHERE d.state = 'delivered'"
    )
    for row in delivered:
        if heard.get(str(row["id"])) != {(row["webhook_id"], row["status"])}:
            report.violations.append(f"I6 told {heard.get(str(row['id']))}, stored {dict(row)}")


async def _i7(stack: Stack, report: Report) -> None:
    await _must_be_empty(
        stack,
        report,
        "I7 two rows for one keyed request",
        "SELECT username, count(*) FROM llm_workflow_jobs WHERE username LIKE 'once-%'"
        " GROUP BY username HAVING count(*) > 1",
    )
    rows = await stack.rows("SELECT key, job_id FROM llm_idempotency_keys")
    stored = {row["key"]: str(row["job_id"]) for row in rows}
    for key, job_id in stack.keys.items():
        if stored.get(key) != job_id:
            report.violations.append(f"I7 {key} was answered {job_id}, stored is {stored.get(key)}")


async def _i8(stack: Stack, report: Report) -> None:
    await _must_be_empty(
        stack,
        report,
        "I8 times out of order",
        "SELECT id, created_at, started_at, completed_at, duration_ms FROM llm_workflow_jobs"
        " WHERE started_at < created_at OR completed_at < coalesce(started_at, created_at) OR duration_ms < 0"
        " OR created_at > now() OR (status IN ('completed', 'failed', 'cancelled')) <> (completed_at IS NOT NULL)",
    )


async def _i9(stack: Stack, report: Report) -> None:
    await _must_be_empty(
        stack,
        report,
        "I9 a finished job holds a lease",
        "SELECT id, status FROM llm_workflow_jobs WHERE status <> 'processing'"
        " AND (lease_token IS NOT NULL OR lease_expires_at IS NOT NULL)",
    )
    left: list[bytes] = []

    async def is_redis_empty() -> bool:
        async with stack.redis_client() as client:
            keys = [key async for key in client.scan_iter(count=1000)]
        left[:] = [key for key in keys if b":bell" not in key and b"health-check" not in key]
        return not left

    try:
        # arq's own mark on a hint that a dead worker followed lives for ten seconds.
        await until(is_redis_empty, "Redis forgets", 15)
    except AssertionError:
        kinds = Counter(key.decode().split(":")[1] for key in left)
        report.violations.append(f"I9 Redis keeps {kinds}, e.g. {left[:2]}")

    async def none_open() -> bool:
        return not await stack.value(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = $1 AND state LIKE 'idle in transaction%'"
            " AND now() - state_change > interval '2 s'",
            stack.database,
        )

    try:
        await until(none_open, "no open transaction", 12)
    except AssertionError as error:
        report.violations.append(f"I9 {error}")


async def _i11(stack: Stack, report: Report) -> None:
    most = sum(CONNECTIONS_OF[name.rstrip("0123456789")] for name in stack.processes)
    held = await stack.value(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = $1 AND application_name LIKE 'llm-service%'",
        stack.database,
    )
    if held > most:
        report.violations.append(f"I11 {held} connections, the pools have {most}")
    for managed in stack.processes.values():
        if not managed.child.is_running:
            continue
        place = Path(f"/proc/{managed.pid}")
        descriptors = len(list((place / "fd").iterdir()))
        memory_mb = int((place / "statm").read_text().split()[1]) * 4 // 1024
        if descriptors > MOST_DESCRIPTORS or memory_mb > MOST_MEMORY_MB:
            report.violations.append(f"I11 {managed.name}: {descriptors} descriptors, {memory_mb} MB")


async def _i12(stack: Stack, report: Report) -> None:
    texts: dict[str, str] = {name: managed.output() for name, managed in stack.processes.items()}
    for path in ("/api/v1/jobs?limit_results=200", "/metrics", "/health"):
        with contextlib.suppress(OSError):
            texts[path] = str((await stack.call("GET", path, headers=AUTH))[1])
    async with stack.redis_client() as client:
        async for key in client.scan_iter(count=1000):
            texts[f"redis {key!r}"] = str(await _read(client, key))
    for place, text in texts.items():
        for canary in CANARIES:
            if canary in text:
                report.violations.append(f"I12 {canary} is in {place}")


async def _read(client: Any, key: bytes) -> Any:
    kind = await client.type(key)
    if kind == b"string":
        return await client.get(key)
    if kind == b"zset":
        return await client.zrange(key, 0, -1)
    return json.dumps([str(entry) for entry in await client.lrange(key, 0, -1)]) if kind == b"list" else ""
