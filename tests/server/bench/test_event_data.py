"""The client's side of server-sent events."""

from __future__ import annotations

import itertools
import json

from hypothesis import given
from hypothesis import strategies as st

from layerscale_server.bench.api_client import event_data

STREAM = (
    ": a comment\n\n"
    'data: {"text": "one"}\n\n'
    'event: ping\r\ndata:{"text": "two\u2028lines\x85"}\r\n\r\n'
    "data: [DONE]\n\n"
    'data: {"text": "cut off'
).encode()


@given(st.lists(st.integers(0, len(STREAM)), max_size=8).map(sorted))
def test_events_are_the_same_however_the_network_cuts_them(cuts: list[int]) -> None:
    edges = [0, *cuts, len(STREAM)]
    chunks = [STREAM[start:stop] for start, stop in itertools.pairwise(edges)]
    assert [json.loads(data)["text"] for data in event_data(chunks)] == ["one", "two\u2028lines\x85"]


def test_an_event_does_not_wait_for_the_next() -> None:
    events = event_data(iter([b'data: {"a": 1}\n']))
    assert next(events) == b'{"a": 1}'
