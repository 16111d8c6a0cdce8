"""The dashboards of the benchmark ask as often as the pages do."""

import re
from importlib.resources import files

from tests.benchmarks.dashboards import CHARTS_EVERY_S, COUNTS_EVERY_S, ROWS_EVERY_S

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
