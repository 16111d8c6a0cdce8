"""What is measured, part by part. Each part measures the peer and ours in turns and returns rows."""

import asyncio
import json
import random
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import aiohttp
import msgspec
from tests.benchmarks import limits, seeding
from tests.benchmarks.load import Generator, Measured, body, raw_get, raw_submits
from tests.benchmarks.processes import ROOT
from tests.benchmarks.report import Row, median, percentile
from tests.benchmarks.sides import SECRET, Side, bare

SMALL = 10_000


class Size(msgspec.Struct, frozen=True, kw_only=True):
    """How long and how much."""

    rounds: int = 3
    submit_s: float = 5
    list_s: float = 3
    alone_s: float = 2
    small_s: float = 1
    pickups: int = 100
    idle_s: float = 10
    jobs: int = 5_000
    peer_jobs: int = 1_000
    waves: int = 8
    peer_waves: int = 5
    rows: int = 1_000_000


SHORT = {
    "rounds": 1,
    "submit_s": 2,
    "list_s": 1,
    "alone_s": 1,
    "pickups": 20,
    "idle_s": 3,
    "peer_jobs": 200,
    "waves": 3,
    "peer_waves": 2,
}
QUERIES = {
    "default": "",
    "limit_results 25": "limit_results=25",
    "limit_results 500": "limit_results=500",
    "Today": "limit_results=Today",
    "7 Days": f"limit_results={quote('7 Days')}",
    "30 Days": f"limit_results={quote('30 Days')}",
    "failed": "status=failed",
    "failed + Today": "status=failed&limit_results=Today",
    "one user": f"user_id={seeding.USER}",
    "one action": f"action={quote(seeding.ACTION)}",
}


class FarEnd:
    """The model server and receiver, seen from the benchmark."""

    async def __aenter__(self) -> Self:
        argv = [sys.executable, "-m", "tests.benchmarks.far_end"]
        self._child = subprocess.Popen(argv, stdout=subprocess.PIPE, cwd=ROOT)
        assert self._child.stdout is not None
        self.root = f"http://127.0.0.1:{int(self._child.stdout.readline())}"
        self._session = aiohttp.ClientSession()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()
        self._child.terminate()
        self._child.wait(10)

    def model(self, latency_ms: int) -> str:
        return f"{self.root}/model/{latency_ms}/v1"

    async def reset(self) -> None:
        async with self._session.post(f"{self.root}/reset"):
            pass

    async def wait(self, *, calls: int = 0, hooks: int = 0, within_s: float = 300) -> dict[str, Any]:
        """What it saw, as soon as so much came. Raises TimeoutError with what did come."""
        deadline = time.monotonic() + within_s
        while True:
            async with self._session.get(f"{self.root}/wait?calls={calls}&hooks={hooks}") as answer:
                seen: dict[str, Any] = json.loads(await answer.read())
            if seen["calls"] >= calls and seen["hooks"] >= hooks:
                return seen
            if time.monotonic() > deadline:
                raise TimeoutError(f"waited for {calls} calls and {hooks} webhooks, got {seen}")


class Bench(msgspec.Struct, frozen=True):
    peer: Side
    ours: Side
    far_end: FarEnd
    generator: Generator
    size: Size
    folder: Path

    @property
    def sides(self) -> tuple[Side, Side]:
        return self.peer, self.ours


def say(text: str) -> None:
    print(text, flush=True)


async def measure_submits_and_lists(bench: Bench) -> list[Row]:
    with ExitStack() as undo:
        started = [side.start_api() for side in bench.sides]
        for process, _ in started:
            undo.enter_context(process)
        ports = [port for _, port in started]
        rows = await _submits(bench, ports)
        rows += await _lists(bench, ports)
        for process, _ in started:
            process.check()
        peer, ours = (process.memory_mib() for process, _ in started)
        rows.append(
            Row(
                section="Memory",
                what="API after this load, RSS",
                unit="MiB",
                yardstick=peer,
                ours=ours,
                less_is_better=True,
            )
        )
    return rows


async def _submits(bench: Bench, ports: list[int]) -> list[Row]:
    requests = raw_submits(SECRET, f"{bench.far_end.root}/hook")
    got: dict[str, list[Measured]] = {"bare": [], "peer": [], "ours": []}
    process, bare_port = bare(bench.folder)
    with process:
        for _ in range(bench.size.rounds):
            for name, port in (("bare", bare_port), ("peer", ports[0]), ("ours", ports[1])):
                measured = await asyncio.to_thread(
                    bench.generator.run, requests, port=port, connections=64, seconds=bench.size.submit_s
                )
                got[name].append(measured)
                say(
                    f"submit {name}: {measured.rate:.0f}/s p50 {measured.p50_ms:.1f} p99 {measured.p99_ms:.1f} ms, {measured.errors} errors"
                )
            for side in bench.sides:
                await _check_durable(side, got[side.name][-1])
                await side.empty()
    rate = {name: median(each.rate for each in runs) for name, runs in got.items()}
    p50, p99 = (
        {name: median(getattr(each, field) for each in runs) for name, runs in got.items()}
        for field in ("p50_ms", "p99_ms")
    )
    inserts = {
        rows: await limits.inserts_per_s(
            bench.ours.database_url, connections=count, rows=rows, seconds=bench.size.alone_s
        )
        for rows, count in ((1, 64), (50, 2))
    }
    section, limit = "Submit, 64 connections", "Submit beside the bare limits"
    return [
        Row(section=section, what="requests", unit="/s", yardstick=rate["peer"], ours=rate["ours"], goal=10),
        Row(
            section=section,
            what="p50",
            unit="ms",
            yardstick=p50["peer"],
            ours=p50["ours"],
            less_is_better=True,
        ),
        Row(
            section=section,
            what="p99",
            unit="ms",
            yardstick=p99["peer"],
            ours=p99["ours"],
            less_is_better=True,
            goal=5,
        ),
        Row(
            section=limit,
            what="Litestar + msgspec that writes nothing",
            unit="/s",
            yardstick=rate["bare"],
            ours=rate["ours"],
            goal=0.5,
        ),
        Row(
            section=limit,
            what="INSERT of 1 row, 64 connections, asyncpg",
            unit="/s",
            yardstick=inserts[1],
            ours=rate["ours"],
        ),
        Row(
            section=limit,
            what="INSERT of 50 rows, 2 connections, asyncpg",
            unit="/s",
            yardstick=inserts[50],
            ours=rate["ours"],
        ),
    ]


async def _check_durable(side: Side, measured: Measured) -> None:
    """Every 202 is a row. (Requests that the generator dropped at its end may be rows as well.)"""
    sql = await side.connect()
    found = await sql.fetchval("SELECT count(*) FROM llm_workflow_jobs")
    await sql.close()
    if found < measured.requests or measured.errors:
        raise RuntimeError(
            f"{side.name}: {measured.requests} answers, {measured.errors} errors, {found} rows"
        )


async def _lists(bench: Bench, ports: list[int]) -> list[Row]:
    sql = [await side.connect() for side in bench.sides]
    await seeding.seed(sql[1], SMALL)
    small = {
        what: await _list(bench, ports[1], query, 1, bench.size.small_s) for what, query in QUERIES.items()
    }
    for side, connection in zip(bench.sides, sql, strict=True):
        start = time.monotonic()
        await seeding.seed(connection, bench.size.rows)
        say(f"seeded {bench.size.rows:,} rows for {side.name} in {time.monotonic() - start:.0f} s")
    rates, alone, growth = [], [], []
    count = f"{bench.size.rows:,} rows"
    for what, query in {**QUERIES, "default, count=exact": "count=exact"}.items():
        goals = {} if "exact" in what else {"rate": 8.0, "alone": 2.0}
        many = [await _list(bench, port, query, 16, bench.size.list_s) for port in ports]
        one = [await _list(bench, port, query, 1, bench.size.alone_s) for port in ports]
        say(
            f"list {what}: {many[0].rate:.0f} and {many[1].rate:.0f}/s, alone {one[0].p50_ms:.2f} and {one[1].p50_ms:.2f} ms"
        )
        rates.append(
            Row(
                section=f"List, {count}, 16 connections",
                what=what,
                unit="/s",
                yardstick=many[0].rate,
                ours=many[1].rate,
                goal=goals.get("rate"),
            )
        )
        alone.append(
            Row(
                section=f"List, {count}, alone, p50",
                what=what,
                unit="ms",
                yardstick=one[0].p50_ms,
                ours=one[1].p50_ms,
                less_is_better=True,
                goal=goals.get("alone"),
            )
        )
        if what in small:
            growth.append(
                Row(
                    section="Growth of our lists, alone, p50",
                    what=what,
                    unit="ms",
                    yardstick=small[what].p50_ms,
                    ours=one[1].p50_ms,
                    is_growth=True,
                    goal=2,
                )
            )
    page_ms = await limits.page_ms(sql[1])
    alone.append(
        Row(
            section="List beside the bare limit, alone, p50",
            what="SELECT of the 50 newest, no count, asyncpg",
            unit="ms",
            yardstick=page_ms,
            ours=alone[0].ours,
            less_is_better=True,
        )
    )
    for side, connection in zip(bench.sides, sql, strict=True):
        await connection.close()
        await side.empty()
    return rates + alone + growth


async def _list(bench: Bench, port: int, query: str, connections: int, seconds: float) -> Measured:
    request = raw_get(f"/api/v1/jobs?{query}", SECRET)
    measured = await asyncio.to_thread(
        bench.generator.run, [request], port=port, connections=connections, seconds=seconds
    )
    if measured.errors:
        raise RuntimeError(f"{query}: {measured.errors} errors of {measured.requests}")
    return measured


class Submitter:
    """Hands jobs to an API over HTTP, one or many at a time."""

    def __init__(self, session: aiohttp.ClientSession, port: int, hook: str) -> None:
        self._session, self._url, self._hook = session, f"http://127.0.0.1:{port}/api/v1/workflow", hook

    async def submit(self, number: int) -> float:
        """The moment just before it was sent, on the monotonic clock."""
        content = json.dumps(body(number, self._hook)).encode()
        headers = {"X-API-Secret": SECRET, "Content-Type": "application/json"}
        sent_at = time.monotonic()
        async with self._session.post(self._url, data=content, headers=headers) as answer:
            if answer.status != 202:
                raise RuntimeError(f"{self._url}: {answer.status} {await answer.text()}")
            await answer.read()
        return sent_at

    async def submit_many(self, count: int) -> None:
        numbers = iter(range(count))

        async def client() -> None:
            for number in numbers:
                await self.submit(number)

        await asyncio.gather(*(client() for _ in range(32)))


@asynccontextmanager
async def serving(bench: Bench, side: Side) -> AsyncIterator[Submitter]:
    """An API of the side, with nothing in its tables."""
    await side.empty()
    await bench.far_end.reset()
    process, port = side.start_api()
    with process:
        async with aiohttp.ClientSession() as session:
            yield Submitter(session, port, f"{bench.far_end.root}/hook")
        process.check()
    await side.empty()


async def _warm(bench: Bench, submitter: Submitter) -> None:
    await submitter.submit_many(32)
    await bench.far_end.wait(calls=32, hooks=32, within_s=60)
    await asyncio.sleep(1)


async def measure_pickup(bench: Bench) -> list[Row]:
    """Submit to the arrival of the model call, one job at a time, and what the worker costs before that."""
    took: dict[str, list[float]] = {}
    idle: dict[str, float] = {}
    for side in bench.sides:
        async with serving(bench, side) as submitter:
            with side.start_worker("quick", bench.far_end.model(0)) as worker:
                await _warm(bench, submitter)
                before = worker.cpu_s()
                await asyncio.sleep(bench.size.idle_s)
                idle[side.name] = 100 * (worker.cpu_s() - before) / bench.size.idle_s
                took[side.name] = [
                    await _pick_up(bench, submitter, number) for number in range(bench.size.pickups)
                ]
                worker.check()
        say(
            f"pick-up {side.name}: p50 {percentile(took[side.name], 0.5):.1f} ms, idle {idle[side.name]:.2f} %"
        )
    ring_ms = await limits.ring_ms(bench.ours.redis_url)
    section = "Pick-up, idle worker"
    p50, p99 = ([percentile(took[name], share) for name in ("peer", "ours")] for share in (0.5, 0.99))
    return [
        Row(
            section=section,
            what="submit to model call, p50",
            unit="ms",
            yardstick=p50[0],
            ours=p50[1],
            less_is_better=True,
            goal=2,
        ),
        Row(
            section=section,
            what="submit to model call, p99",
            unit="ms",
            yardstick=p99[0],
            ours=p99[1],
            less_is_better=True,
        ),
        Row(
            section="Pick-up beside the bare limit",
            what="LPUSH to the end of BRPOP, redis-py, p50",
            unit="ms",
            yardstick=ring_ms,
            ours=p50[1],
            less_is_better=True,
        ),
        Row(
            section=section,
            what="CPU of the idle worker",
            unit="% of a core",
            yardstick=idle["peer"],
            ours=idle["ours"],
            less_is_better=True,
        ),
    ]


async def _pick_up(bench: Bench, submitter: Submitter, number: int) -> float:
    await bench.far_end.reset()
    await asyncio.sleep(random.uniform(0.02, 0.06))
    sent_at = await submitter.submit(number)
    seen = await bench.far_end.wait(calls=1, hooks=1, within_s=20)
    return float(1000 * (seen["first_call"] - sent_at))


class Run(msgspec.Struct, frozen=True):
    """A backlog worked off, from the first model call to the last webhook."""

    jobs: int
    seconds: float
    cpu_s: float
    answers_s: float
    most_in_flight: int
    rss_early: float
    rss: float
    pss: float

    @property
    def per_cpu_s(self) -> float:
        return self.jobs / self.cpu_s


async def work_off(bench: Bench, side: Side, kind: str, *, jobs: int, latency_ms: int) -> Run:
    """Jobs are queued first, then the worker starts; its start counts for nothing."""
    async with serving(bench, side) as submitter:
        await submitter.submit_many(jobs)
        await bench.far_end.reset()
        with side.start_worker(kind, bench.far_end.model(latency_ms)) as worker:
            await bench.far_end.wait(calls=1, within_s=60)
            cpu_s = worker.cpu_s()
            await bench.far_end.wait(hooks=max(1, jobs // 5))
            rss_early = worker.memory_mib()
            seen = await bench.far_end.wait(calls=jobs, hooks=jobs)
            cpu_s = worker.cpu_s() - cpu_s
            rss, pss = worker.memory_mib(), worker.memory_mib("Pss")
            worker.check()
    took = seen["last_hook"] - seen["first_call"]
    answers = seen["last_answer"] - seen["first_call"]
    run = Run(jobs, took, cpu_s, answers, seen["most_in_flight"], rss_early, rss, pss)
    say(
        f"{jobs} jobs of {latency_ms} ms, {side.name} {kind}: {jobs / took:.0f}/s, {run.per_cpu_s:.0f} per CPU s,"
        f" most in flight {run.most_in_flight}, {rss_early:.0f} then {rss:.0f} MiB"
    )
    return run


async def measure_throughput(bench: Bench) -> list[Row]:
    size = bench.size
    peer = await work_off(bench, bench.peer, "quick", jobs=size.peer_jobs, latency_ms=0)
    ours = await work_off(bench, bench.ours, "quick", jobs=size.jobs, latency_ms=0)
    slow_peer = await work_off(
        bench, bench.peer, "slow", jobs=size.peer_waves * bench.peer.slots, latency_ms=1000
    )
    slow_ours = await work_off(bench, bench.ours, "slow", jobs=size.waves * bench.ours.slots, latency_ms=1000)
    possible = min(float(bench.ours.slots), ours.per_cpu_s)
    rate = slow_ours.jobs / slow_ours.answers_s
    at_once, slow, beside = (
        "A model that answers at once",
        "A model that takes 1 s",
        "A model that takes 1 s, beside what is possible",
    )
    return [
        Row(
            section=at_once,
            what="jobs per CPU second of the worker",
            unit="",
            yardstick=peer.per_cpu_s,
            ours=ours.per_cpu_s,
            goal=4,
        ),
        Row(
            section=at_once,
            what="jobs",
            unit="/s",
            yardstick=peer.jobs / peer.seconds,
            ours=ours.jobs / ours.seconds,
        ),
        Row(
            section=slow,
            what="most in flight, one process",
            unit="jobs",
            yardstick=slow_peer.most_in_flight,
            ours=slow_ours.most_in_flight,
        ),
        Row(section=slow, what="jobs", unit="/s", yardstick=slow_peer.jobs / slow_peer.answers_s, ours=rate),
        Row(
            section=beside,
            what="in flight, of the 300 asked for",
            unit="jobs",
            yardstick=300,
            ours=slow_ours.most_in_flight,
            goal=1,
        ),
        Row(
            section=beside,
            what="jobs, of what slots or one core allow",
            unit="/s",
            yardstick=possible,
            ours=rate,
            goal=0.9,
        ),
        Row(
            section="Memory",
            what="worker after its jobs, RSS",
            unit="MiB",
            yardstick=peer.rss,
            ours=ours.rss,
            less_is_better=True,
        ),
        Row(
            section="Memory",
            what="worker after its jobs, PSS",
            unit="MiB",
            yardstick=peer.pss,
            ours=ours.pss,
            less_is_better=True,
        ),
        Row(
            section="Growth of our worker's memory",
            what=f"after {size.jobs // 5:,} and {size.jobs:,} jobs, RSS",
            unit="MiB",
            yardstick=ours.rss_early,
            ours=ours.rss,
            is_growth=True,
            goal=1.1,
        ),
    ]


PARTS = (measure_submits_and_lists, measure_pickup, measure_throughput)
