"""Charts as SVG."""

from __future__ import annotations

import itertools
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerscale_server.bench.chart import Chart, svg_of, ticks

_SVG = "{http://www.w3.org/2000/svg}"


@given(*2 * [st.floats(0, 1e9).map(lambda value: round(value, 3))])
def test_ticks_are_few_round_and_cover_the_values(one: float, other: float) -> None:
    low, high = sorted((one, other))
    marks = ticks(low, high)
    assert 2 <= len(marks) <= 8
    tolerance = 1e-9 * max(1.0, high)
    assert marks[0] <= low + tolerance
    assert marks[-1] >= high - tolerance
    steps = [after - before for before, after in itertools.pairwise(marks)]
    assert steps == pytest.approx([steps[0]] * len(steps), rel=1e-6)


def test_a_picture_has_every_line_with_every_point_inside() -> None:
    charts = [
        Chart("one", "x <", "y &", {"a": [(0, 1.5), (2048, 3)], "b > c": [(10, 0)]}),
        Chart("two", "x", "y", {"a": [(5, 5)]}),
    ]
    root = ET.fromstring(svg_of(charts))
    texts = [element.text for element in root.iter(f"{_SVG}text")]
    assert {"one", "two", "x <", "y &", "a", "b > c"} <= set(texts)
    circles = list(root.iter(f"{_SVG}circle"))
    assert len(circles) == 4
    for circle in circles:
        assert 0 <= float(circle.attrib["cx"]) <= 720
        assert 0 <= float(circle.attrib["cy"]) <= 400


def test_lines_run_from_left_to_right() -> None:
    drawn = svg_of([Chart("", "", "", {"a": [(2, 1), (1, 1), (3, 1)]})])
    xs = [float(circle.attrib["cx"]) for circle in ET.fromstring(drawn).iter(f"{_SVG}circle")]
    assert xs == sorted(xs)
    assert len(set(xs)) == 3
