"""The dashboards of the benchmark ask as often as the pages do."""

import re
from importlib.resources import files

import pytest
from tests.benchmarks.dashboards import CHARTS_EVERY_S, COUNTS_EVERY_S, ROWS_EVERY_S, Submits, rows_of
from tests.benchmarks.load import Measured

ADMIN = files("llm_service.admin")


def constant(script: str, name: str) -> float:
    found = re.search(rf"const {name} = ([\d *]+);", (ADMIN / "static" / script).read_text())
    assert found is not None, (script, name)
    product = 1.0
    for factor in found[1].split("*"):
        product *= float(factor)
    return product / 1000


def test_the_intervals_are_those_of_the_scripts() -> None:
    assert constant("queue.js", "COUNTS_EVERY_MS") == COUNTS_EVERY_S
    assert constant("insight.js", "EVERY_MS") == CHARTS_EVERY_S
    chosen = re.search(r'<option value="(\d+)" selected>', (ADMIN / "templates" / "_live.html").read_text())
    assert chosen is not None
    assert float(chosen[1]) == ROWS_EVERY_S


def test_a_ratio_is_that_of_rounds_and_not_of_the_machines_moods() -> None:
    def runs(*p95s_ms: float) -> list[Submits]:
        return [Submits(Measured(1000, 5, 1.0, p95_ms, 9.0, 0), 0.5) for p95_ms in p95s_ms]

    got = {
        (pace, watched): runs(10.4, 100, 1010) if watched else runs(10, 100, 1000)
        for pace in ("steady", "flat out")
        for watched in (False, True)
    }
    p95, p50, cpu, *flat_out = rows_of(got)
    assert p95.ratio == pytest.approx(1.01)
    assert (p95.goal, p95.is_met) == (1.05, True)
    assert (p50.ratio, p50.is_met) == (1.0, None)
    assert cpu.yardstick == 0.5, "milliseconds a submit"
    assert len(flat_out) == 3
