"""Jobs as they look after a month of use: written by SQL, the same each time but for the clock."""

import json
import random
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg

WORK = {
    "generate contacts": ("emergency_contacts", 6.0),
    "generate mission report": ("mission_generation", 24.0),
    "plan the route": ("driving_directions", 4.0),
    "summarize notes": ("completion", 3.0),
    "draft a briefing": ("completion", 7.0),
}
USERS = ["jane_smith", "dispatch", "night_shift", "field_office_3", "planner_2", "training", "reception"]
ERRORS = {
    "ModelTimeout": "The model did not answer within 120 s: openai:gpt-4.1-mini, step contacts, third try.",
    "ModelUnavailable": "The provider answered 529 (overloaded) to every try within 4 minutes.",
    "OutputValidationError": "The answer lacks the field `contacts[2].phone`; a second answer lacked it too.",
    "WorkerLost": "The worker stopped while it had this job, three times in a row.",
}
JOB = (
    "id workflow_name priority webhook_url debug_mode user_id username action status input_data result error_message "
    "error_code queued_at started_at completed_at duration_ms created_at updated_at attempt claims max_attempts "
    "lease_token lease_expires_at worker run_after request_id webhook_state total_tokens cost_usd"
).split()
STORY = UUID("01981c5e-7b1a-7c3e-9d52-2f6a1c0b9e44")
"""The job of the debugging story: jane_smith was generating contacts when the model timed out."""
RUNNING = UUID("01981c5e-7b1a-7c3e-9d52-2f6a1c0b9e45")


class Rows:
    def __init__(self, now: datetime) -> None:
        self.now = now
        self.chance = random.Random(7)
        self.jobs: list[tuple[Any, ...]] = []
        self.attempts: list[tuple[Any, ...]] = []
        self.calls: list[tuple[Any, ...]] = []
        self.deliveries: list[tuple[Any, ...]] = []
        self.tries: list[tuple[Any, ...]] = []

    def job(self, at: datetime, status: str, *, attempt: int = 1, **given: Any) -> UUID:
        """One job with its side rows; `given` overrides its columns."""
        action = given.pop("action", None) or self.chance.choices(list(WORK), [5, 4, 3, 6, 2])[0]
        workflow, typical_s = WORK.get(action, ("completion", 3.0))
        wait_s = given.pop("wait_s", self.chance.expovariate(1 / 0.9))
        run_s = given.pop("run_s", typical_s * self.chance.lognormvariate(0, 0.5))
        started = at + timedelta(seconds=wait_s) if status != "pending" or attempt > 1 else None
        over = status in ("completed", "failed", "cancelled")
        ended = (started or at) + timedelta(seconds=run_s) if over else None
        code = given.pop("error_code", None) or (
            self.chance.choices(list(ERRORS), [6, 3, 2, 1])[0] if status == "failed" else None
        )
        tokens = int(run_s * 180) if over else None
        row: dict[str, Any] = {
            "id": UUID(int=(int(at.timestamp() * 1000) << 80) | (0x7 << 76) | (0x2 << 62) | self.chance.getrandbits(60)),
            "workflow_name": workflow, "priority": 0, "webhook_url": "https://receiver.example.org/hooks/llm", "debug_mode": False,
            "user_id": UUID(int=self.chance.randrange(9) + (4 << 76) + (2 << 62)), "username": self.chance.choices(USERS, [4, 6, 3, 3, 2, 2, 1])[0],
            "action": action, "status": status, "input_data": json.dumps({"location": "Brno", "scenarios": ["flood", "power cut"], "notes": "We meet at the library on Main Street."}),
            "result": json.dumps({"contacts": [{"name": "Fire and rescue", "phone": "150"}, {"name": "Flood line", "phone": "+420 000 000 000"}]}) if status == "completed" else None,
            "error_message": ERRORS.get(code or ""), "error_code": code, "queued_at": at, "started_at": started, "completed_at": ended,
            "duration_ms": int(run_s * 1000) if over else None, "created_at": at, "updated_at": ended or at, "attempt": attempt, "claims": attempt,
            "max_attempts": 3, "lease_token": None, "lease_expires_at": self.now + timedelta(hours=8) if status == "processing" else None,
            "worker": "worker-1", "run_after": at, "request_id": f"{self.chance.getrandbits(96):024x}",
            "webhook_state": self.chance.choices(["delivered", "none"], [7, 2])[0] if over else "none", "total_tokens": tokens,
            "cost_usd": None if tokens is None or workflow == "completion" else round(tokens * 0.0000021, 6),
        }  # fmt: skip
        row |= given
        self.jobs.append(tuple(row[name] for name in JOB))
        if started is not None and self.now - at < timedelta(days=2):
            self._side_rows(row, started, ended, attempt)
        return row["id"]  # type: ignore[no-any-return]

    def _side_rows(
        self, row: dict[str, Any], started: datetime, ended: datetime | None, attempt: int
    ) -> None:
        whole = (ended or self.now) - started
        for number in range(1, attempt + 1):
            begin, last = started + whole * ((number - 1) / attempt), number == attempt
            end = ended if last else started + whole * (number / attempt) - timedelta(milliseconds=200)
            outcome = ("running" if row["status"] == "processing" else row["status"]) if last else "failed"
            if last and row["status"] == "pending":
                outcome, end = "failed", started + whole * 0.9
            self.attempts.append(
                (
                    row["id"],
                    number,
                    "worker-1",
                    begin,
                    end,
                    outcome,
                    row["error_code"] if outcome == "failed" else None,
                )
            )
            status = {"completed": "succeeded", "running": "running"}.get(outcome, "failed")
            took = None if end is None else (end - begin) * 0.92
            self.calls.append(
                (row["id"], number, "contacts" if attempt == 1 else f"contacts, attempt {number}", "openai", "gpt-4.1-mini", status, begin + timedelta(milliseconds=60),
                 None if took is None else begin + timedelta(milliseconds=60) + took, None if took is None else int(took.total_seconds() * 1000),
                 812 if status == "succeeded" else None, 416 if status == "succeeded" else None, 0.0012 if status == "succeeded" else None, number - 1,
                 row["error_code"] if status == "failed" else None, row["error_message"] if status == "failed" else None)
            )  # fmt: skip
        if ended is not None and row["webhook_state"] != "none":
            event = f"workflow.{row['status']}"
            waits = row["webhook_state"] == "retrying"
            tries = {"delivered": 1, "retrying": 2, "exhausted": 3}.get(row["webhook_state"], 0)
            self.deliveries.append(
                (
                    row["id"],
                    f"msg_{row['id'].hex}",
                    event,
                    row["webhook_state"],
                    tries,
                    self.now + timedelta(minutes=4) if waits else None,
                )
            )
            for number in range(1, tries + 1):
                good = row["webhook_state"] == "delivered"
                self.tries.append(
                    (
                        row["id"],
                        number,
                        ended + timedelta(seconds=(number - 1) * 6 + 0.2),
                        200 if good else 503,
                        84,
                        "ok" if good else "upstream is restarting",
                        None,
                    )
                )


JOB_SIDE = {
    "attempts": ("llm_job_attempts", "job_id claim worker started_at ended_at outcome error_code"),
    "calls": (
        "llm_calls",
        "job_id claim step provider model status started_at completed_at latency_ms input_tokens output_tokens cost_usd retries error_code error_message",
    ),
    "deliveries": ("llm_webhook_deliveries", "job_id webhook_id event state tries next_attempt_at"),
    "tries": ("llm_webhook_attempts", "job_id number started_at status_code latency_ms response error"),
}


async def seed(url: str, *, rows: int = 4_000) -> None:
    connection = await asyncpg.connect(url)
    try:
        made = month(await connection.fetchval("SELECT now()"), rows)
        await write(connection, made)
        await connection.execute(
            "INSERT INTO llm_workers (name, seen_at, running, concurrency) VALUES ('worker-1', now() + interval '8 hours', 4, 100)"
        )
        await connection.execute("ANALYZE")
    finally:
        await connection.close()


async def write(connection: asyncpg.Connection, made: Rows) -> None:
    await connection.copy_records_to_table("llm_workflow_jobs", records=made.jobs, columns=JOB)
    for name, (table, columns) in JOB_SIDE.items():
        await connection.copy_records_to_table(table, records=getattr(made, name), columns=columns.split())


def month(now: datetime, rows: int) -> Rows:
    made = Rows(now)
    chance = made.chance
    for _ in range(rows):
        age = timedelta(days=30) * chance.random() ** 1.7 + timedelta(minutes=3)
        status = chance.choices(["completed", "failed", "cancelled"], [93, 6, 1])[0]
        made.job(now - age, status, attempt=3 if status == "failed" and chance.random() < 0.7 else 1)
    for minute in (26, 31, 44):
        made.job(now - timedelta(minutes=minute), "completed", username=None, user_id=None, action=None)
    made.job(
        now - timedelta(minutes=2, seconds=40),
        "completed",
        action="generate mission report",
        username="dispatch",
        priority=8,
    )
    made.job(
        now - timedelta(minutes=3), "failed", id=STORY, action="generate contacts", username="jane_smith", error_code="ModelTimeout",
        attempt=3, wait_s=1.2, run_s=42.0, webhook_state="retrying", error_message=ERRORS["ModelTimeout"],
    )  # fmt: skip
    made.job(
        now - timedelta(minutes=1, seconds=50),
        "completed",
        action="plan the route",
        username="night_shift",
        webhook_state="exhausted",
    )
    made.job(now - timedelta(seconds=70), "cancelled", action="draft a briefing", username="planner_2")
    for seconds, user in ((38, "dispatch"), (21, "jane_smith"), (12, "field_office_3")):
        made.job(now - timedelta(seconds=seconds), "processing", username=user, wait_s=0.8)
    made.job(
        now - timedelta(seconds=95),
        "processing",
        id=RUNNING,
        username="jane_smith",
        action="generate mission report",
        attempt=2,
        wait_s=1.0,
    )
    made.job(
        now - timedelta(seconds=130),
        "pending",
        attempt=2,
        run_after=now + timedelta(minutes=20),
        wait_s=1.0,
        username="training",
    )
    for seconds in (9, 4):
        made.job(now - timedelta(seconds=seconds), "pending")
    return made
