"""`make bench`: the service beside a peer and the bare limits, on servers of its own.

BENCH=short is quick and writes nothing; otherwise the figures go into docs/performance.md. ROWS is the size of the
list, JOBS the number of jobs that our worker works off.
"""

import asyncio
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.benchmarks import dashboards
from tests.benchmarks.load import Generator
from tests.benchmarks.machine import Watch, describe
from tests.benchmarks.parts import PARTS
from tests.benchmarks.processes import ROOT, Process
from tests.benchmarks.report import Row, chart, put_between_marks, table, verdict
from tests.benchmarks.setting import SHORT, Bench, FarEnd, Size
from tests.benchmarks.sides import PEER, PEER_BIN, ours, peer

from llm_service.devstack import Servers, start_servers
from llm_service.migrations import upgrade

PAGE, CHART = ROOT / "docs" / "performance.md", ROOT / "docs" / "performance.svg"
OUR_SLOTS, PEER_SLOTS = 400, 100
HEADS = {
    "Submit beside the bare limits": ("limit", "ours"),
    "List beside the bare limit, alone, p50": ("limit", "ours"),
    "Pick-up beside the bare limit": ("limit", "ours"),
    "A model that takes 1 s, beside what is possible": ("possible", "ours"),
    "Growth of our lists, alone, p50": ("10,000 rows", "all rows"),
    dashboards.SECTION: ("no page", f"{dashboards.OPEN} pages"),
    "Growth of our worker's memory": ("early", "at the end"),
}


async def measure(servers: Servers, folder: Path, size: Size, parts: set[str]) -> tuple[list[Row], list[str]]:
    facts = await describe(servers)
    generator = Generator(folder)
    facts.append(f"- load by {generator.name}; a lone API process and a lone worker a side")
    theirs = await peer(servers, folder, PEER_SLOTS)
    create = [str(PEER_BIN / "python"), "models.py"]
    with Process(create, theirs.env, folder / "peer-tables.log", cwd=PEER) as tables:
        tables.wait()
    rows: list[Row] = []
    async with FarEnd() as far_end:
        bench = Bench(theirs, ours(servers, folder, OUR_SLOTS), far_end, generator, size, folder)
        for part in PARTS:
            if not parts or part.__name__.removeprefix("measure_") in parts:
                rows += await part(bench)
    order = {section: number for number, section in reversed(list(enumerate(row.section for row in rows)))}
    return sorted(rows, key=lambda row: order[row.section]), facts


def read_size() -> Size:
    chosen: dict[str, Any] = SHORT if is_short() else {}
    return Size(
        **chosen, rows=int(os.environ.get("ROWS", "1000000")), jobs=int(os.environ.get("JOBS", "5000"))
    )


def is_short() -> bool:
    return os.environ.get("BENCH") == "short"


def main() -> None:
    if not PEER_BIN.exists():
        sys.exit("The peer is not installed: run this by `make bench`.")
    parts = set(sys.argv[1:])
    watch = Watch()
    folder = Path(tempfile.mkdtemp(prefix="llm-bench-"))
    folder.chmod(0o755)
    size = read_size()
    try:
        with start_servers(folder) as servers:
            upgrade(servers.database_url)
            rows, facts = asyncio.run(measure(servers, folder, size, parts))
    finally:
        shutil.rmtree(folder)
    facts.append(
        f"- {size.rounds} rounds of {size.submit_s:g} s of submits, {size.list_s:g} s for each list,"
        f" {size.rows:,} rows, {size.pickups} pick-ups, {size.jobs:,} jobs at once"
    )
    facts.append(watch.told())
    figures = f"{verdict(rows)}\n\n{chr(10).join(facts)}\n\n{table(rows, HEADS)}"
    print(figures)
    if not is_short() and not parts:
        PAGE.write_text(put_between_marks(PAGE.read_text(encoding="utf-8"), figures), encoding="utf-8")
        CHART.write_text(chart(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
