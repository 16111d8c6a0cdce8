"""What open dashboards cost a submit: the same submits without and with 20 LLM Queue pages that are being watched.

`python -m tests.benchmarks.dashboards <port> <count>` is that many browsers as the server sees them: each logs in, opens the
list and asks as `admin/static/*.js` do. It prints a line when all are open, and what they asked when its input ends.
"""

import asyncio
import random
import re
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AsyncExitStack, nullcontext, suppress
from typing import NamedTuple, Self

import aiohttp
import msgspec
import uvloop
from tests.benchmarks import seeding
from tests.benchmarks.load import Measured, raw_submits
from tests.benchmarks.processes import ROOT
from tests.benchmarks.report import Row, grown, median
from tests.benchmarks.setting import Bench
from tests.benchmarks.sides import ADMIN_PASSWORD, SECRET

OPEN = 20
ROWS_EVERY_S, COUNTS_EVERY_S, CHARTS_EVERY_S = 5.0, 30.0, 60.0
"""As the page has them; a test holds them to its scripts."""
SEEDED = 100_000
STEADY_PER_S = 200
GOAL = 1.05
SECTION = f"Submit beside {OPEN} open dashboards"
FETCH = {"X-Requested-With": "fetch"}


class Asked(msgspec.Struct):
    """What all pages together asked; `unchanged` were answered 304."""

    rows: int = 0
    charts: int = 0
    unchanged: int = 0
    refused: int = 0


class Dashboard:
    """One browser with one page open, for a while already: its timers stand anywhere."""

    def __init__(self, root: str, session: aiohttp.ClientSession, asked: Asked) -> None:
        self._root = root
        self._session = session
        self._asked = asked
        self._etags: dict[str, str] = {}

    async def watch(self) -> None:
        await asyncio.gather(self._poll_rows(), self._poll_charts())

    async def open(self) -> None:
        async with self._session.get(f"{self._root}/admin") as form:
            found = re.search(r'name="csrf_token" value="([0-9a-f]+)"', await form.text())
        assert found is not None
        sent = {"password": ADMIN_PASSWORD, "csrf_token": found[1]}
        async with self._session.post(f"{self._root}/admin", data=sent) as page:
            if page.status != 200 or not str(page.url).endswith("/admin/queue"):
                raise RuntimeError(f"the login led to {page.status} {page.url}")
            await page.read()

    async def _poll_rows(self) -> None:
        counted_at = time.monotonic() - random.uniform(0, COUNTS_EVERY_S)
        await asyncio.sleep(random.uniform(0, ROWS_EVERY_S))
        while True:
            with_counts = time.monotonic() - counted_at > COUNTS_EVERY_S
            await self._ask("/admin/queue/rows?part=all" if with_counts else "/admin/queue/rows?")
            self._asked.rows += 1
            if with_counts:
                counted_at = time.monotonic()
            await asyncio.sleep(ROWS_EVERY_S)

    async def _poll_charts(self) -> None:
        await asyncio.sleep(random.uniform(0, CHARTS_EVERY_S))
        while True:
            await self._ask("/admin/insight?", with_etag=False)
            self._asked.charts += 1
            await asyncio.sleep(CHARTS_EVERY_S)

    async def _ask(self, path: str, *, with_etag: bool = True) -> None:
        known = {"If-None-Match": self._etags[path]} if with_etag and path in self._etags else {}
        async with self._session.get(self._root + path, headers=FETCH | known) as answer:
            await answer.read()
            self._asked.unchanged += answer.status == 304
            self._asked.refused += answer.status >= 400
            if "ETag" in answer.headers:
                self._etags[path] = answer.headers["ETag"]


async def watch(port: int, count: int) -> None:
    asked = Asked()
    async with AsyncExitStack() as closing:
        pages = []
        for _ in range(
            count
        ):  # one after another: of one address, the service looks at one password at a time
            jar = aiohttp.CookieJar(unsafe=True)
            session = await closing.enter_async_context(aiohttp.ClientSession(cookie_jar=jar))
            pages.append(Dashboard(f"http://127.0.0.1:{port}", session, asked))
            await pages[-1].open()
        print("open", flush=True)
        watched = asyncio.gather(*(page.watch() for page in pages))
        ended = asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
        await asyncio.wait([ended, watched], return_when=asyncio.FIRST_COMPLETED)
        if watched.done():
            await watched  # a page broke
        watched.cancel()
        with suppress(asyncio.CancelledError):
            await watched
    print(msgspec.json.encode(asked).decode(), flush=True)


class Dashboards:
    """The other process. Leaving the context closes the pages; `asked` is set then."""

    def __init__(self, port: int, count: int) -> None:
        self._argv = [sys.executable, "-m", "tests.benchmarks.dashboards", str(port), str(count)]

    def __enter__(self) -> Self:
        self._child = subprocess.Popen(
            self._argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, text=True
        )
        if self._tell() != "open":
            raise RuntimeError("the dashboards did not open")
        return self

    def _tell(self) -> str:
        assert self._child.stdout is not None
        return self._child.stdout.readline().strip()

    def __exit__(self, *_: object) -> None:
        assert self._child.stdin is not None
        self._child.stdin.close()
        last = self._tell()
        self._child.wait(10)
        if self._child.returncode != 0:
            raise RuntimeError("a dashboard broke")
        self.asked = msgspec.json.decode(last, type=Asked)
        if self.asked.refused:
            raise RuntimeError(f"pages were refused: {last}")


class Submits(NamedTuple):
    """One run of submits, and what the API's process used for it, pages included."""

    measured: Measured
    cpu_s: float


PACES = {"steady": f"{STEADY_PER_S} submits a second", "flat out": "64 connections, flat out"}


async def measure_dashboards(bench: Bench) -> list[Row]:
    """In turns, so that what the machine does otherwise falls on both."""
    sql = await bench.ours.connect()
    await seeding.seed(sql, SEEDED)
    await sql.close()
    requests = raw_submits(SECRET, f"{bench.far_end.root}/hook")
    got: dict[tuple[str, bool], list[Submits]] = {}
    api, port = bench.ours.start_api()

    def submits(pace: str, seconds: float) -> Submits:
        before = api.cpu_s()
        if pace == "steady":
            measured = bench.generator.run_paced(requests, port=port, per_s=STEADY_PER_S, seconds=seconds)
        else:
            measured = bench.generator.run(requests, port=port, connections=64, seconds=seconds)
        if measured.errors:
            raise RuntimeError(f"{measured.errors} of {measured.requests} submits were refused")
        return Submits(measured, api.cpu_s() - before)

    def one(pace: str, seconds: float, *, watched: bool) -> Submits:
        with Dashboards(port, OPEN) if watched else nullcontext() as pages:
            done = submits(pace, seconds)
        asked = "no page" if pages is None else f"{OPEN} pages ({pages.asked})"
        took = done.measured
        print(
            f"submit {pace}, {asked}: {took.rate:.0f}/s p50 {took.p50_ms:.2f} p95 {took.p95_ms:.2f} ms, "
            f"API {done.cpu_s / took.seconds:.2f} cores",
            flush=True,
        )
        return done

    with api:
        await asyncio.to_thread(one, "flat out", bench.size.watched_s / 2, watched=True)  # all is warm then
        await _forget_submits(bench)
        for number in range(bench.size.rounds):
            for pace in PACES:
                for watched in (False, True) if number % 2 == 0 else (True, False):
                    done = await asyncio.to_thread(one, pace, bench.size.watched_s, watched=watched)
                    got.setdefault((pace, watched), []).append(done)
                    await _forget_submits(bench)
        api.check()
    await bench.ours.empty()
    return rows_of(got)


async def _forget_submits(bench: Bench) -> None:
    """No worker takes them: they would fill the backlog, and each run would begin with a larger one."""
    sql = await bench.ours.connect()
    for statement in (
        "DELETE FROM llm_workflow_jobs WHERE status = 'pending'",
        "VACUUM llm_workflow_jobs",
        "CHECKPOINT",
    ):
        await sql.execute(statement)
    await sql.close()


def rows_of(got: dict[tuple[str, bool], list[Submits]]) -> list[Row]:
    """Each ratio is the median of the rounds' own: what the machine does otherwise changes from round to round."""
    figures: dict[str, tuple[str, Callable[[Submits], float], float | None]] = {
        "p95": ("ms", lambda run: run.measured.p95_ms, GOAL),
        "p50": ("ms", lambda run: run.measured.p50_ms, None),
        "CPU of the API a submit": ("ms", lambda run: 1000 * run.cpu_s / run.measured.requests, None),
    }
    rows = []
    for pace, words in PACES.items():
        for what, (unit, figure, goal) in figures.items():
            without, with_pages = ([figure(run) for run in got[pace, watched]] for watched in (False, True))
            ratio = median(b / a for a, b in zip(without, with_pages, strict=True))
            none = median(without)
            row = grown(SECTION, f"{what}, {words}", unit, none, none * ratio, goal=GOAL)
            rows.append(msgspec.structs.replace(row, goal=goal))
    return rows


if __name__ == "__main__":
    uvloop.run(watch(*(int(word) for word in sys.argv[1:3])))
