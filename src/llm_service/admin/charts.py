"""The geometry of the pages' pictures, in percent of their width and height: SVG needs no style for it."""

from datetime import datetime

import msgspec

from llm_service.jobs.store.insight import STEP, Bucket, Window

STACK = ("completed", "cancelled", "pending", "processing", "failed")
"""From the foot of a bar to its top: what failed is on top, where it is seen."""


class Part(msgspec.Struct, frozen=True):
    status: str
    y: float
    height: float


class Bar(msgspec.Struct, frozen=True, kw_only=True):
    """One hour or day. `x` and `width` in percent of the chart, the parts in percent of its height."""

    start: datetime
    end: datetime
    label: str
    x: float
    width: float
    total: int
    counts: dict[str, int]
    parts: list[Part]
    is_partial: bool
    """It has not ended yet, or began before the window."""
    is_labelled: bool


def scale_of(buckets: list[Bucket]) -> int:
    """The number at the top of the chart."""
    return max([bucket.total for bucket in buckets] + [1])


def bars_of(buckets: list[Bucket], window: Window) -> list[Bar]:
    top = scale_of(buckets)
    step = STEP[window.bucket]
    slot = 100 / len(buckets)
    every = max(1, -(-len(buckets) // 8))
    return [
        Bar(
            start=bucket.start,
            end=bucket.start + step,
            label=f"{bucket.start:%H:%M}" if window.bucket == "hour" else f"{bucket.start:%d %b}",
            x=round(i * slot + slot * 0.1, 3),
            width=round(slot * 0.8, 3),
            total=bucket.total,
            counts=bucket.counts,
            parts=_parts(bucket, top),
            is_partial=bucket.start + step > window.until or bucket.start < window.since,
            is_labelled=i % every == 0,
        )
        for i, bucket in enumerate(buckets)
    ]


def _parts(bucket: Bucket, top: int) -> list[Part]:
    parts: list[Part] = []
    foot = 100.0
    for status in STACK:
        if number := bucket.counts.get(status, 0):
            height = number / top * 100
            foot -= height
            parts.append(Part(status, round(foot, 3), round(height, 3)))
    return parts
