"""Arithmetic and looks of the report: rows of figures become ratios, a table and a chart."""

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from html import escape

import msgspec

BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One figure of ours beside its yardstick: the peer, a bare limit, or ourselves under other conditions."""

    section: str
    what: str
    unit: str
    yardstick: float
    ours: float
    less_is_better: bool = False
    goal: float | None = None
    """The ratio to reach; with `is_growth` the one not to exceed."""
    is_growth: bool = False
    """The ratio says how many times more it became, not how many times better it is."""

    @property
    def ratio(self) -> float:
        """How many times better ours is. Not a number where either was not measured."""
        if not (self.yardstick > 0 and self.ours > 0):
            return math.nan
        return (
            self.yardstick / self.ours
            if self.less_is_better and not self.is_growth
            else self.ours / self.yardstick
        )

    @property
    def is_met(self) -> bool | None:
        if self.goal is None or math.isnan(self.ratio):
            return None
        return self.ratio <= self.goal if self.is_growth else self.ratio >= self.goal


def more(
    section: str, what: str, unit: str, yardstick: float, ours: float, *, goal: float | None = None
) -> Row:
    """More is better."""
    return Row(section=section, what=what, unit=unit, yardstick=yardstick, ours=ours, goal=goal)


def less(
    section: str, what: str, unit: str, yardstick: float, ours: float, *, goal: float | None = None
) -> Row:
    """Less is better."""
    return Row(
        section=section, what=what, unit=unit, yardstick=yardstick, ours=ours, goal=goal, less_is_better=True
    )


def grown(section: str, what: str, unit: str, before: float, after: float, *, goal: float) -> Row:
    """How many times more it became."""
    return Row(section=section, what=what, unit=unit, yardstick=before, ours=after, goal=goal, is_growth=True)


def percentile(values: Iterable[float], share: float) -> float:
    """The value that `share` of all do not exceed (nearest rank)."""
    ordered = sorted(values)
    if not ordered:
        return math.nan
    return ordered[min(len(ordered), max(1, math.ceil(share * len(ordered)))) - 1]


def median(values: Iterable[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return statistics.median(known) if known else math.nan


def figure(value: float) -> str:
    """Three digits that count, thousands with commas."""
    if math.isnan(value):
        return "–"
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:.{min(digits, 4)}f}"


def goal_text(row: Row) -> str:
    if row.goal is None:
        return ""
    return f"{'at most' if row.is_growth else 'at least'} {row.goal:g}×"


def met_text(row: Row) -> str:
    return {None: "", True: "yes", False: "**no**"}[row.is_met]


def table(rows: Sequence[Row], columns: dict[str, tuple[str, str]]) -> str:
    """Markdown: a table for each section, in the order they came. `columns` names the two figures of each."""
    lines: list[str] = []
    for section in dict.fromkeys(row.section for row in rows):
        yardstick, ours = columns.get(section, ("peer", "ours"))
        lines += [f"### {section}", "", f"| | unit | {yardstick} | {ours} | ratio | goal | met |"]
        lines.append("|---|---|--:|--:|--:|---|---|")
        for row in rows:
            if row.section == section:
                ratio = "–" if math.isnan(row.ratio) else f"{figure(row.ratio)}×"
                cells = [row.what, row.unit, figure(row.yardstick), figure(row.ours), ratio]
                lines.append(f"| {' | '.join([*cells, goal_text(row), met_text(row)])} |")
        lines.append("")
    return "\n".join(lines)


def verdict(rows: Sequence[Row]) -> str:
    with_goal = [row for row in rows if row.is_met is not None]
    return f"{sum(bool(row.is_met) for row in with_goal)} of {len(with_goal)} goals met."


LEFT, WIDTH, LINE, TOP = 330, 900, 20, 46


def chart(rows: Sequence[Row]) -> str:
    """An SVG of the rows with a goal: a bar for each ratio on a scale of powers of ten, a mark at its goal."""
    shown = [row for row in rows if row.goal is not None and not row.is_growth and not math.isnan(row.ratio)]
    most = max([10.0, *(row.ratio for row in shown), *(row.goal or 0 for row in shown)])
    low, high = -1.0, math.ceil(math.log10(most))
    height = TOP + LINE * len(shown) + 16
    room = WIDTH - LEFT - 70

    def x(ratio: float) -> float:
        return LEFT + room * (min(max(math.log10(ratio), low), high) - low) / (high - low)

    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif"'
            ' font-size="12" role="img" aria-label="How many times better than the yardstick">'
        ),
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        (
            f'<text x="{LEFT}" y="16" fill="#222">times better than the yardstick;'
            " the black mark is the goal (logarithmic)</text>"
        ),
    ]
    for power in range(int(low), int(high) + 1):
        at, color = x(10.0**power), "#888" if power == 0 else "#ddd"
        parts.append(
            f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{TOP - 8}" y2="{height - 12}" stroke="{color}"/>'
        )
        parts.append(
            f'<text x="{at:.1f}" y="{TOP - 12}" fill="#555" text-anchor="middle">{10.0**power:g}×</text>'
        )
    for number, row in enumerate(shown):
        parts += _bar(row, TOP + LINE * number, x)
    return "\n".join([*parts, "</svg>", ""])


def _bar(row: Row, y: int, x: Callable[[float], float]) -> list[str]:
    zero, end, goal = x(1), x(row.ratio), x(row.goal or 1)
    color = "#2e7d5b" if row.is_met else "#c0392b"
    label = f"{row.section}: {row.what}"
    label = label if len(label) <= 54 else f"{label[:53]}…"
    return [
        f'<text x="{LEFT - 8}" y="{y + 13}" fill="#222" text-anchor="end" font-size="11">{escape(label)}</text>',
        f'<rect x="{min(zero, end):.1f}" y="{y + 3}" width="{max(abs(end - zero), 1):.1f}" height="12" fill="{color}"/>',
        f'<line x1="{goal:.1f}" x2="{goal:.1f}" y1="{y}" y2="{y + 18}" stroke="#000" stroke-width="2"/>',
        f'<text x="{max(end, zero, goal) + 5:.1f}" y="{y + 13}" fill="#222" font-size="11">{figure(row.ratio)}×</text>',
    ]


def put_between_marks(page: str, figures: str) -> str:
    """The page with its generated part replaced. Raises ValueError where the marks are missing."""
    if page.count(BEGIN) != 1 or page.count(END) != 1:
        raise ValueError(f"The page must hold {BEGIN} and {END} once each.")
    return f"{page[: page.index(BEGIN)]}{BEGIN}\n\n{figures.strip()}\n\n{page[page.index(END) :]}"
