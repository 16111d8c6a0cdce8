"""The story of one job as steps on an axis, drawn to scale where that can be seen, and cut where it can't."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import msgspec

from llm_service.jobs.store.listing import JobRecord

LONG_WAIT = 2.0
"""A wait longer than so many times the rest is drawn short, with a cut in it."""
CUT = 18.0
AFTER = 12.0
"""Percent of the width for a wait that was cut, and for what came after the end."""
STEPS_S = [base * 10**power for power in range(-3, 6) for base in (1, 2, 5)]


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that happened. `x` and `width` in percent of the axis."""

    kind: str
    label: str
    note: str | None
    outcome: str
    error: str | None
    start: datetime
    duration_ms: float | None
    x: float
    width: float
    is_error: bool
    is_cut: bool = False


class Tick(msgspec.Struct, frozen=True):
    x: float
    ms: float


class Timeline(msgspec.Struct, frozen=True, kw_only=True):
    steps: list[Step]
    ticks: list[Tick]
    is_cut: bool
    has_after: bool


class Axis:
    """Maps moments to percent. Piecewise: the wait, then the work to scale, then a strip for what came after."""

    def __init__(self, start: datetime, work: datetime, end: datetime, *, has_after: bool) -> None:
        wait, rest = (work - start).total_seconds(), max((end - work).total_seconds(), 0.001)
        self.start, self.work, self.end = start, work, max(end, work + timedelta(milliseconds=1))
        self.right = 100.0 - (AFTER if has_after else 0.0)
        self.is_cut = wait > LONG_WAIT * rest
        self.middle = CUT if self.is_cut else self.right * wait / (wait + rest)

    def x(self, moment: datetime) -> float:
        if moment <= self.work:
            whole = (self.work - self.start).total_seconds()
            share = (moment - self.start).total_seconds() / whole if whole else 1.0
            return round(max(0.0, share) * self.middle, 3)
        whole = (self.end - self.work).total_seconds()
        share = min(1.0, (moment - self.work).total_seconds() / whole)
        return round(self.middle + share * (self.right - self.middle), 3)

    def ticks(self) -> list[Tick]:
        """Round times since the start of what is drawn to scale, five at most."""
        origin = self.work if self.is_cut else self.start
        length_s = (self.end - origin).total_seconds()
        step = next((step for step in STEPS_S if length_s / step <= 4), STEPS_S[-1])
        count = int(length_s / step)
        return [
            Tick(self.x(origin + timedelta(seconds=step * i)), step * i * 1000)
            for i in range(count + 1)
            if self.x(origin + timedelta(seconds=step * i)) < self.right - 4
        ]


def timeline_of(record: JobRecord, now: datetime) -> Timeline:
    job = record.job
    is_over = job.completed_at is not None
    ends = [row.ended_at for row in record.attempts] + [row.completed_at for row in record.calls]
    end = max([moment for moment in (*ends, job.completed_at) if moment] + ([] if is_over else [now]))
    work = job.started_at or end
    axis = Axis(job.created_at, max(work, job.created_at), end, has_after=bool(record.tries))
    steps = [*_wait(job, axis, now), *_work(record, axis, now), *_end(job, axis), *_hooks(record, axis)]
    return Timeline(steps=steps, ticks=axis.ticks(), is_cut=axis.is_cut, has_after=bool(record.tries))


def _step(axis: Axis, start: datetime, end: datetime | None, now: datetime, **facts: Any) -> Step:
    x = axis.x(start)
    return Step(
        start=start,
        duration_ms=((end or now) - start).total_seconds() * 1000,
        x=x,
        width=max(axis.x(end or now) - x, 0.0),
        **facts,
    )


def _wait(job: Any, axis: Axis, now: datetime) -> Iterator[Step]:
    over = job.started_at or job.completed_at
    is_held_back = over is None and job.run_after > now
    note = (
        None
        if over
        else "held back, so that many do not start together"
        if is_held_back
        else "waits for a worker"
    )
    yield _step(
        axis, job.created_at, over, now,
        kind="wait", label="Accepted, in the queue", note=note, outcome="ok", error=None, is_error=False,
        is_cut=axis.is_cut,
    )  # fmt: skip


def _work(record: JobRecord, axis: Axis, now: datetime) -> Iterator[Step]:
    for number, attempt in enumerate(record.attempts, 1):
        yield _step(
            axis, attempt.started_at, attempt.ended_at, now,
            kind="attempt", label=f"Attempt {number}", note=attempt.worker, outcome=attempt.outcome,
            error=attempt.error_code, is_error=attempt.outcome in ("failed", "lost"),
        )  # fmt: skip
        for call in record.calls:
            if call.claim == attempt.claim:
                yield _call(call, axis, now)


def _call(call: Any, axis: Axis, now: datetime) -> Step:
    retries = f", {call.retries} retr{'y' if call.retries == 1 else 'ies'} within" if call.retries else ""
    return _step(
        axis, call.started_at, call.completed_at, now,
        kind="call", label=call.step, note=f"{call.provider}:{call.model}{retries}",
        outcome="waiting for the provider" if call.status == "running" else call.status,
        error=call.error_code, is_error=call.status in ("failed", "lost"),
    )  # fmt: skip


def _end(job: Any, axis: Axis) -> Iterator[Step]:
    if job.completed_at is not None:
        yield Step(
            kind="end", label={"completed": "Result stored", "failed": "Failed"}.get(job.status, "Cancelled"),
            note=None, outcome=job.status, error=job.error_code, start=job.completed_at, duration_ms=None,
            x=axis.x(job.completed_at), width=0.0, is_error=job.status == "failed",
        )  # fmt: skip


def _hooks(record: JobRecord, axis: Axis) -> Iterator[Step]:
    count = len(record.tries)
    for number, tried in enumerate(record.tries):
        is_error = tried.status_code is None or not 200 <= tried.status_code < 300
        yield Step(
            kind="hook", label=f"Webhook, try {tried.number}", note=tried.error,
            outcome=str(tried.status_code or "no answer"), error=None, start=tried.started_at,
            duration_ms=tried.latency_ms, x=round(axis.right + AFTER * (number + 0.5) / count, 3), width=0.0,
            is_error=is_error,
        )  # fmt: skip
