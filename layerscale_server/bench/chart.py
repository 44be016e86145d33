"""Line charts as plain SVG."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

_WIDTH, _HEIGHT = 720, 400
_LEFT, _RIGHT, _TOP, _BOTTOM = 80, 190, 40, 60
_COLOURS = ("#0b62a4", "#d2691e", "#2e8b57", "#8b3a8b", "#b8860b", "#556b6f")
_MAX_TICKS = 6

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Chart:
    """Lines over one pair of axes, each through its points from left to right; the y axis begins at 0.

    Attributes:
        lines: by the name in the legend; each has at least one point.
    """

    title: str
    x_label: str
    y_label: str
    lines: Mapping[str, Sequence[Point]]


def svg_of(charts: Sequence[Chart]) -> str:
    """A picture of the charts, one below the other."""
    height = _HEIGHT * len(charts)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}"'
        f' viewBox="0 0 {_WIDTH} {height}" font-family="sans-serif" font-size="12">',
        f'<rect width="{_WIDTH}" height="{height}" fill="white"/>',
    ]
    for number, chart in enumerate(charts):
        parts += [f'<g transform="translate(0 {number * _HEIGHT})">', *_chart(chart), "</g>"]
    return "\n".join([*parts, "</svg>"]) + "\n"


def _chart(chart: Chart) -> Iterator[str]:
    points = [point for line in chart.lines.values() for point in line]
    x_ticks = ticks(min(x for x, _ in points), max(x for x, _ in points))
    y_ticks = ticks(0.0, max(y for _, y in points))

    def place(point: Point) -> Point:
        return (
            _LEFT + _share(point[0], x_ticks) * (_WIDTH - _LEFT - _RIGHT),
            _HEIGHT - _BOTTOM - _share(point[1], y_ticks) * (_HEIGHT - _TOP - _BOTTOM),
        )

    yield _text(_LEFT, _TOP - 16, chart.title, "start", "bold")
    for tick in x_ticks:
        x, y = place((tick, y_ticks[0]))
        yield _text(x, y + 18, f"{tick:g}", "middle")
    for tick in y_ticks:
        x, y = place((x_ticks[0], tick))
        yield f'<path d="M{x:.1f} {y:.1f}H{_WIDTH - _RIGHT}" stroke="#ddd"/>'
        yield _text(x - 8, y + 4, f"{tick:g}", "end")
    yield _text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 20, chart.x_label, "middle")
    yield f'<g transform="translate(20 {(_TOP + _HEIGHT - _BOTTOM) / 2}) rotate(-90)">'
    yield _text(0, 0, chart.y_label, "middle")
    yield "</g>"
    for number, (name, line) in enumerate(chart.lines.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        yield from _line([place(point) for point in sorted(line)], colour)
        y = _TOP + 18 * number
        yield f'<rect x="{_WIDTH - _RIGHT + 16}" y="{y - 9}" width="10" height="10" fill="{colour}"/>'
        yield _text(_WIDTH - _RIGHT + 32, y, name, "start")


def _line(places: Sequence[Point], colour: str) -> Iterator[str]:
    path = "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
    yield f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2"/>'
    for x, y in places:
        yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>'


def _text(x: float, y: float, text: str, anchor: str, weight: str = "normal") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-weight="{weight}">{escape(text)}</text>'


def _share(value: float, marks: Sequence[float]) -> float:
    """Where a value lies between the first tick and the last, as a part of the axis."""
    return (value - marks[0]) / (marks[-1] - marks[0])


def ticks(low: float, high: float) -> list[float]:
    """Round numbers at equal distances from ``low`` or less to ``high`` or more; two at least."""
    span = (high - low) or abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(span / _MAX_TICKS))
    step = next(step for step in (power, 2 * power, 5 * power, 10 * power) if span / step <= _MAX_TICKS)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [round(number * step, 12) for number in range(first, max(last, first + 1) + 1)]
