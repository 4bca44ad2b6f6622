"""A timeline's coordinates: what is drawn where, in units of the picture. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sandbox.capture.report.timeline import Mark, Span, Timeline

WIDTH = 1000
LABELS = 150
LANE = 34
AXIS = 22
_PAD = 10
_LEAST_WIDTH = 4.0
# Ticks at round times; the first step that leaves few enough of them is taken.
_STEPS = tuple(timedelta(seconds=s) for s in (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600))
_MOST_TICKS = 10
_LONGEST_LABEL = 20


@dataclass(frozen=True)
class Bar:
    """A rectangle; ``state`` is its class."""

    x: float
    y: float
    width: float
    height: float
    state: str
    title: str


@dataclass(frozen=True)
class Point:
    """A mark around a point; ``kind`` is its class."""

    x: float
    y: float
    kind: str
    title: str


@dataclass(frozen=True)
class Label:
    """A text; ``title`` is the whole of it where it was too long."""

    x: float
    y: float
    text: str
    title: str


@dataclass(frozen=True)
class Picture:
    """A drawing of ``width`` × ``height`` units."""

    width: float
    height: float
    bars: tuple[Bar, ...]
    points: tuple[Point, ...]
    labels: tuple[Label, ...]
    ticks: tuple[Label, ...]
    captured: Bar


def draw(timeline: Timeline) -> Picture:
    """Lay a timeline out: one lane a service, time from left to right."""
    scale = _Scale(timeline)
    height = AXIS + LANE * max(len(timeline.lanes), 1) + _PAD
    begin, end = (scale.x(at) for at in timeline.captured)
    return Picture(
        WIDTH,
        height,
        # What ended at once is as narrow as can be seen: nothing may cover it.
        bars=tuple(scale.bar(span) for span in sorted(timeline.spans, key=lambda span: span.state == "crashed")),
        points=tuple(scale.point(mark) for mark in timeline.marks),
        labels=tuple(
            Label(0, scale.y(lane) + LANE / 2 + 4, _short(lane or "(the namespace)"), lane) for lane in timeline.lanes
        ),
        ticks=tuple(_ticks(timeline, scale)),
        captured=Bar(begin, AXIS, max(end - begin, _LEAST_WIDTH), height - AXIS, "captured", "the capture was taken"),
    )


class _Scale:
    def __init__(self, timeline: Timeline) -> None:
        self._begin = timeline.begin
        self._length = max((timeline.end - timeline.begin).total_seconds(), 1.0)
        self._lane = {lane: number for number, lane in enumerate(timeline.lanes)}

    def x(self, at: datetime) -> float:
        share = (at - self._begin).total_seconds() / self._length
        return round(LABELS + min(max(share, 0.0), 1.0) * (WIDTH - LABELS - _PAD), 1)

    def y(self, lane: str) -> float:
        return AXIS + LANE * self._lane[lane]

    def bar(self, span: Span) -> Bar:
        left, right = self.x(span.begin), self.x(span.end)
        return Bar(left, self.y(span.lane) + 12, max(round(right - left, 1), _LEAST_WIDTH), 12, span.state, span.title)

    def point(self, mark: Mark) -> Point:
        # What people did stands above the line, what the cluster said on it.
        above = mark.kind in ("rollout", "release", "record")
        return Point(self.x(mark.at), self.y(mark.lane) + (6 if above else 28), mark.kind, mark.title)


def _ticks(timeline: Timeline, scale: _Scale) -> Iterator[Label]:
    length = timeline.end - timeline.begin
    step = next((step for step in _STEPS if length / step <= _MOST_TICKS), _STEPS[-1])
    seconds = int(step.total_seconds())
    first = -(-int(timeline.begin.timestamp()) // seconds) * seconds
    for second in range(first, int(timeline.end.timestamp()) + 1, seconds):
        at = datetime.fromtimestamp(second, UTC)
        yield Label(scale.x(at), 14, at.strftime("%H:%M:%S" if seconds < 60 else "%H:%M"), "")


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST_LABEL else f"{text[: _LONGEST_LABEL - 1]}…"
