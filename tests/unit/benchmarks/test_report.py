"""The benchmark's own arithmetic: no server is started and no second is asserted."""

import math
from xml.etree import ElementTree as ET

import pytest
from tests.benchmarks.load import Measured, body, raw_submits
from tests.benchmarks.report import (
    BEGIN,
    END,
    chart,
    figure,
    grown,
    less,
    median,
    more,
    percentile,
    put_between_marks,
    table,
    verdict,
)

FASTER = more("Submit", "requests", "/s", 300, 3000, goal=10)
SLOWER = less("List", "p50", "ms", 5.0, 4.0, goal=2)
LARGER = grown("Growth", "default", "ms", 1.0, 1.5, goal=2)
UNKNOWN = less("Pick-up", "idle <CPU>", "%", 0.0, 0.5, goal=2)
ROWS = [FASTER, SLOWER, LARGER, UNKNOWN]


def test_a_ratio_says_how_many_times_better_it_is() -> None:
    assert FASTER.ratio == 10
    assert SLOWER.ratio == 1.25
    assert LARGER.ratio == 1.5, "growth is how many times more"
    assert math.isnan(UNKNOWN.ratio), "nothing is no yardstick"


def test_a_goal_is_met_from_the_goal_on() -> None:
    assert [row.is_met for row in ROWS] == [True, False, True, None]
    assert grown("Growth", "default", "ms", 1.0, 2.1, goal=2).is_met is False
    assert more("Submit", "requests", "/s", 300, 3000).is_met is None
    assert verdict(ROWS) == "2 of 3 goals met."


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [([3, 1, 2], 0.5, 2), ([5], 0.99, 5), (range(1, 101), 0.99, 99), (range(1, 101), 1, 100)],
)
def test_a_percentile_is_a_value_that_was_measured(
    values: list[float], share: float, expected: float
) -> None:
    assert percentile(values, share) == expected


def test_nothing_measured_is_not_a_number() -> None:
    assert math.isnan(percentile([], 0.5))
    assert math.isnan(median([]))
    assert median([math.nan, 1.0, 3.0]) == 2.0
    assert Measured(requests=30, seconds=2, p50_ms=1, p95_ms=2, p99_ms=2, errors=4).rate == 13


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0"),
        (1234567.8, "1,234,568"),
        (99.95, "100.0"),
        (12.34, "12.3"),
        (0.01234, "0.0123"),
        (math.nan, "–"),
    ],
)
def test_figures_show_three_digits(value: float, shown: str) -> None:
    assert figure(value) == shown


def test_the_table_has_a_part_for_each_section_with_its_own_columns() -> None:
    shown = table(ROWS, {"Growth": ("before", "after")})
    assert "| requests | /s | 300 | 3,000 | 10.0× | at least 10× | yes |" in shown
    assert "| p50 | ms | 5.00 | 4.00 | 1.25× | at least 2× | **no** |" in shown
    assert "| | unit | before | after | ratio | goal | met |" in shown
    assert "| default | ms | 1.00 | 1.50 | 1.50× | at most 2× | yes |" in shown
    assert shown.count("### ") == 4


def test_the_chart_is_svg_with_a_bar_for_each_ratio_that_has_a_goal() -> None:
    drawn = chart([*ROWS, more("A & B", "x", "", 1, 1e6, goal=1)])
    bars = [
        element
        for element in ET.fromstring(drawn).iter("{http://www.w3.org/2000/svg}rect")
        if element.get("fill") != "#ffffff"
    ]
    assert len(bars) == 3
    assert all(float(bar.attrib["width"]) > 0 for bar in bars)
    assert "A &amp; B: x" in drawn


def test_the_figures_replace_those_of_the_run_before() -> None:
    page = f"# Title\n{BEGIN}\nold\n{END}\nend\n"
    again = put_between_marks(put_between_marks(page, "first"), "second")
    assert again == f"# Title\n{BEGIN}\n\nsecond\n\n{END}\nend\n"
    with pytest.raises(ValueError, match="once each"):
        put_between_marks("# Title\n", "figures")


def test_submits_are_whole_requests_of_many_users() -> None:
    requests = raw_submits("secret", "http://127.0.0.1:1/hook")
    head, _, content = requests[0].partition(b"\r\n\r\n")
    assert f"Content-Length: {len(content)}".encode() in head
    assert len({body(number, "")["user_id"] for number in range(100)}) == 100
