"""What is measured, part by part. Each part measures the peer and ours in turns and returns rows."""

import asyncio
import random
import time
from contextlib import ExitStack

import msgspec
from tests.benchmarks import limits, seeding
from tests.benchmarks.dashboards import measure_dashboards
from tests.benchmarks.load import Measured, raw_get, raw_submits
from tests.benchmarks.processes import Process
from tests.benchmarks.report import Row, grown, less, median, more, percentile
from tests.benchmarks.setting import QUERIES, Bench, Submitter, serving
from tests.benchmarks.sides import SECRET, Side, bare

SMALL = 10_000


WARM_S = 2
MEMORY = 1.67
"""At most 60 % of the peer's."""
EXACT = "default, count=exact"


def say(text: str) -> None:
    print(text, flush=True)


async def measure_submits_and_lists(bench: Bench) -> list[Row]:
    with ExitStack() as undo:
        started = [side.start_api() for side in bench.sides]
        for process, _ in started:
            undo.enter_context(process)
        ports = [port for _, port in started]
        rows = await _submits(bench, [process for process, _ in started], ports)
        rows += await _lists(bench, ports)
        for process, _ in started:
            process.check()
        peer, ours = (process.memory_mib() for process, _ in started)
        rows.append(less("Memory", "API after this load, RSS", "MiB", peer, ours, goal=MEMORY))
    return rows


async def _submits(bench: Bench, apis: list[Process], ports: list[int]) -> list[Row]:
    requests = raw_submits(SECRET, f"{bench.far_end.root}/hook")
    got: dict[str, list[Measured]] = {"bare": [], "peer": [], "ours": []}
    cpu_s = {"bare": 0.0, "peer": 0.0, "ours": 0.0}
    process, bare_port = bare(bench.folder)
    sides = {"bare": (process, bare_port), "peer": (apis[0], ports[0]), "ours": (apis[1], ports[1])}
    with process:
        for _, port in sides.values():  # first requests open connections
            await asyncio.to_thread(bench.generator.run, requests, port=port, connections=64, seconds=WARM_S)
        for _ in range(bench.size.rounds):
            for name, (api, port) in sides.items():
                before = api.cpu_s()
                measured = await asyncio.to_thread(
                    bench.generator.run, requests, port=port, connections=64, seconds=bench.size.submit_s
                )
                cpu_s[name] += api.cpu_s() - before
                if measured.errors:
                    raise RuntimeError(
                        f"submit {name}: {measured.errors} of {measured.requests} were refused"
                    )
                got[name].append(measured)
                say(
                    f"submit {name}: {measured.rate:.0f}/s p50 {measured.p50_ms:.1f} p99 {measured.p99_ms:.1f} ms"
                )
            for side in bench.sides:
                await _check_durable(side, got[side.name][-1])
                await side.empty()
    return _submit_rows(got, cpu_s) + await _insert_rows(bench, median(each.rate for each in got["ours"]))


def _submit_rows(got: dict[str, list[Measured]], cpu_s: dict[str, float]) -> list[Row]:
    bare, peer, ours = (median(each.rate for each in got[name]) for name in ("bare", "peer", "ours"))
    per_cpu = {name: sum(each.requests for each in runs) / cpu_s[name] for name, runs in got.items()}
    of_peer, of_ours = got["peer"], got["ours"]
    p50 = [median(each.p50_ms for each in runs) for runs in (of_peer, of_ours)]
    p99 = [median(each.p99_ms for each in runs) for runs in (of_peer, of_ours)]
    section, limit = "Submit, 64 connections", "Submit beside the bare limits"
    nothing = "Litestar + msgspec that writes nothing"
    return [
        more(section, "requests", "/s", peer, ours, goal=10),
        less(section, "p50", "ms", *p50),
        less(section, "p99", "ms", *p99, goal=5),
        more(section, "requests per CPU second of the API", "", per_cpu["peer"], per_cpu["ours"]),
        more(limit, nothing, "/s", bare, ours, goal=0.5),
        more(limit, f"{nothing}, per CPU second", "", per_cpu["bare"], per_cpu["ours"]),
    ]


async def _insert_rows(bench: Bench, ours: float) -> list[Row]:
    rows = []
    for count, connections in ((1, 64), (50, 2)):
        rate = await limits.inserts_per_s(
            bench.ours.database_url, connections=connections, rows=count, seconds=bench.size.alone_s
        )
        what = f"rows by asyncpg alone, {count} a commit, {connections} connections"
        rows.append(more("Submit beside the bare limits", what, "/s", rate, ours))
    return rows


async def _check_durable(side: Side, measured: Measured) -> None:
    """Every 202 is a row. (Requests that the generator dropped at its end may be rows as well.)"""
    sql = await side.connect()
    found = await sql.fetchval("SELECT count(*) FROM llm_workflow_jobs")
    await sql.close()
    if found < measured.requests:
        raise RuntimeError(f"{side.name}: {measured.requests} answers, {found} rows")


async def _lists(bench: Bench, ports: list[int]) -> list[Row]:
    sql = [await side.connect() for side in bench.sides]
    chosen = {what: QUERIES[what] for what in bench.size.queries}
    await seeding.seed(sql[1], SMALL)
    small = {
        what: await _list(bench, ports[1], query, 1, bench.size.small_s) for what, query in chosen.items()
    }
    for side, connection in zip(bench.sides, sql, strict=True):
        start = time.monotonic()
        await seeding.seed(connection, bench.size.rows)
        say(f"seeded {bench.size.rows:,} rows for {side.name} in {time.monotonic() - start:.0f} s")
    rates, alone, growth = [], [], []
    count = f"{bench.size.rows:,} rows"
    for name, query in {**chosen, EXACT: "count=exact"}.items():
        many = [await _list(bench, port, query, 16, bench.size.list_s) for port in ports]
        one = [await _list(bench, port, query, 1, bench.size.alone_s) for port in ports]
        peer_ms, our_ms = (each.p50_ms for each in one)
        what = name + _refusals(many)
        say(
            f"list {what}: {many[0].rate:.0f} and {many[1].rate:.0f}/s, alone {peer_ms:.2f} and {our_ms:.2f} ms"
        )
        goals = (None, None) if name == EXACT else (8.0, 2.0)
        rates.append(
            more(f"List, {count}, 16 connections", what, "/s", many[0].rate, many[1].rate, goal=goals[0])
        )
        alone.append(less(f"List, {count}, alone, p50", what, "ms", peer_ms, our_ms, goal=goals[1]))
        if before := small.get(name):
            growth.append(grown("Growth of our lists, alone, p50", what, "ms", before.p50_ms, our_ms, goal=2))
    page_ms, select = await limits.page_ms(sql[1]), "SELECT of the 50 newest, no count, asyncpg"
    alone.append(less("List beside the bare limit, alone, p50", select, "ms", page_ms, alone[0].ours))
    for side, connection in zip(bench.sides, sql, strict=True):
        await connection.close()
        await side.empty()
    return rates + alone + growth


def _refusals(runs: list[Measured]) -> str:
    """Requests without a 200 count for nothing, and the table says so."""
    peer, ours = (run.errors for run in runs)
    return f" (refused: peer {peer}, ours {ours})" if peer or ours else ""


async def _list(bench: Bench, port: int, query: str, connections: int, seconds: float) -> Measured:
    request = raw_get(f"/api/v1/jobs?{query}", SECRET)
    return await asyncio.to_thread(
        bench.generator.run, [request], port=port, connections=connections, seconds=seconds
    )


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
        less(section, "submit to model call, p50", "ms", *p50, goal=2),
        less(section, "submit to model call, p99", "ms", *p99),
        less(section, "CPU of the idle worker", "% of a core", idle["peer"], idle["ours"]),
        less(
            "Pick-up beside the bare limit", "LPUSH to the end of BRPOP, redis-py, p50", "ms", ring_ms, p50[1]
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
    at_once, slow = "A model that answers at once", "A model that takes 1 s"
    beside, memory = "A model that takes 1 s, beside what is possible", "Memory"
    growth = f"RSS after {size.jobs // 5:,} and {size.jobs:,} jobs"
    return [
        more(at_once, "jobs per CPU second of the worker", "", peer.per_cpu_s, ours.per_cpu_s, goal=4),
        more(at_once, "jobs", "/s", peer.jobs / peer.seconds, ours.jobs / ours.seconds),
        more(slow, "most in flight, one process", "jobs", slow_peer.most_in_flight, slow_ours.most_in_flight),
        more(slow, "jobs", "/s", slow_peer.jobs / slow_peer.answers_s, rate),
        more(slow, "jobs per CPU second of the worker", "", slow_peer.per_cpu_s, slow_ours.per_cpu_s),
        more(beside, "in flight, of the 300 asked for", "jobs", 300, slow_ours.most_in_flight, goal=1),
        more(beside, "jobs, of what slots or one core allow", "/s", possible, rate, goal=0.9),
        less(memory, "worker after its jobs, RSS", "MiB", peer.rss, ours.rss, goal=MEMORY),
        less(memory, "worker after its jobs, PSS", "MiB", peer.pss, ours.pss),
        grown("Growth of our worker's memory", growth, "MiB", ours.rss_early, ours.rss, goal=1.1),
    ]


PARTS = (measure_submits_and_lists, measure_dashboards, measure_pickup, measure_throughput)
