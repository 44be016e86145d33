"""Anthropic's streams, byte by byte."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from layerscale_core.errors import StepError
from layerscale_server.state import ServerState
from tests.server.conftest import FakeServer, Gate, MakeServer, chat_prompt, greedy_text

MESSAGES = "/v1/messages"
HI: dict[str, Any] = {
    "messages": [{"role": "user", "content": "hi"}],
    "temperature": 0,
    "max_tokens": 2,
    "stream": True,
}


def events_of(response: httpx.Response) -> list[dict[str, Any]]:
    """The events of a stream, each of which must be named on a line of its own."""
    assert response.status_code == 200, response.text
    events: list[dict[str, Any]] = []
    for frame in response.text.removesuffix("\n\n").split("\n\n"):
        name, data = frame.split("\n")
        events.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {events[-1]['type']}"
    return events


def test_a_stream_is_these_bytes(make_server: MakeServer) -> None:
    response = make_server(alphabet=(ord("A"),)).post(MESSAGES, HI)
    assert response.headers["content-type"] == "text/event-stream"
    assert response.headers["cache-control"] == "no-cache"
    assert response.headers["request-id"] == response.headers["x-request-id"]
    piece = (
        "event: content_block_delta\n"
        'data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"A"}}\n\n'
    )
    text = re.sub(r'"id":"msg_[0-9a-f]{24}"', '"id":"ID"', response.content.decode("ascii"))
    assert text == (
        "event: message_start\n"
        'data: {"type":"message_start","message":{"id":"ID","type":"message","role":"assistant","model":"acme/tiny",'
        '"content":[],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":19,"output_tokens":0}}}\n\n'
        "event: content_block_start\n"
        'data: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}\n\n'
        + 2
        * piece
        + "event: content_block_stop\n"
        'data: {"type":"content_block_stop","index":0}\n\n'
        "event: message_delta\n"
        'data: {"type":"message_delta","delta":{"stop_reason":"max_tokens","stop_sequence":null},'
        '"usage":{"output_tokens":2}}\n\n'
        "event: message_stop\n"
        'data: {"type":"message_stop"}\n\n'
    )


@pytest.mark.parametrize("stops", [[], ["never said"], 1])
def test_streamed_and_whole_are_the_same_message(server: FakeServer, stops: list[str] | int) -> None:
    whole_text = greedy_text(chat_prompt(("user", "hi")), 30)
    stop_sequences = [whole_text[7:9]] if stops == 1 else stops
    asked = HI | {"max_tokens": 30, "stop_sequences": stop_sequences}
    server.post(MESSAGES, asked)  # from now on the prompt is cached
    whole = server.post(MESSAGES, asked | {"stream": False}).json()
    start, *middle, delta, _stop = events_of(server.post(MESSAGES, asked))
    text = "".join(event["delta"]["text"] for event in middle if event["type"] == "content_block_delta")
    assert [{"type": "text", "text": text}] == whole["content"]
    assert delta["delta"] == {name: whole[name] for name in ("stop_reason", "stop_sequence")}
    assert start["message"]["usage"] | delta["usage"] == whole["usage"]
    assert delta["usage"]["cache_read_input_tokens"] == 16


def test_an_empty_answer_is_still_one_block(make_server: MakeServer) -> None:
    names = [event["type"] for event in events_of(make_server(alphabet=(257,)).post(MESSAGES, HI))]
    assert names == ["message_start", "content_block_start", "content_block_stop", "message_delta", "message_stop"]


def test_error_before_the_first_frame_is_an_http_error(server: FakeServer) -> None:
    def fail(*_: object) -> None:
        raise StepError("broken")

    server.executor.before_step = fail
    response = server.post(MESSAGES, HI)
    assert response.status_code == 500
    assert response.json()["error"]["type"] == "api_error"


def test_error_in_a_running_stream_is_an_event_and_the_last(server: FakeServer) -> None:
    def poison(batch: object, logits: object) -> None:
        if len(server.executor.batches) == 3:
            logits[:] = float("nan")  # type: ignore[index]

    server.executor.after_step = poison
    response = server.post(MESSAGES, HI | {"max_tokens": 10})
    *events, error = events_of(response)
    assert events[-1]["type"] == "content_block_delta"
    assert error["error"]["type"] == "api_error"
    assert error["request_id"] == response.headers["request-id"]
    assert set(error) == {"type", "error", "request_id"}


def test_silence_is_filled_with_comments(make_server: MakeServer, run_live: Callable[[ServerState], str]) -> None:
    server = make_server(heartbeat_s=0.1)
    gate = Gate(server.executor)
    with httpx.stream("POST", run_live(server.state) + MESSAGES, json=HI) as response:
        lines = response.iter_lines()
        assert next(lines) == ": heartbeat"
        gate.open()
        names = [line for line in lines if line.startswith("event: ")]
    assert (names[0], names[-1]) == ("event: message_start", "event: message_stop")
