"""Streams, byte by byte."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import httpx

from layerscale_core.errors import NumericalError, StepError
from layerscale_server.http.event_stream import data_frame
from layerscale_server.state import ServerState
from tests.server.conftest import FakeServer, Gate, MakeServer

CHAT = "/v1/chat/completions"
HI = {"messages": [{"role": "user", "content": "hi"}], "temperature": 0, "max_tokens": 2, "stream": True}


def test_a_stream_is_these_bytes(make_server: MakeServer) -> None:
    server = make_server(alphabet=(ord("A"),))
    response = server.post(CHAT, HI | {"stream_options": {"include_usage": True}})
    assert response.headers["content-type"] == "text/event-stream"
    assert response.headers["cache-control"] == "no-cache"
    assert "content-encoding" not in response.headers
    text = re.sub(r'"id":"chatcmpl-[0-9a-f]{24}"', '"id":"ID"', response.content.decode("ascii"))
    text = re.sub(r'"created":\d+', '"created":0', text)
    head = '{"id":"ID","object":"chat.completion.chunk","created":0,"model":"acme/tiny","choices":'
    piece = f'data: {head}[{{"index":0,"delta":{{"content":"A"}},"finish_reason":null}}]}}\n\n'
    assert text == (
        f'data: {head}[{{"index":0,"delta":{{"role":"assistant","content":""}},"finish_reason":null}}]}}\n\n'
        + 2 * piece
        + f'data: {head}[{{"index":0,"delta":{{}},"finish_reason":"length"}}]}}\n\n'
        f'data: {head}[],"usage":{{"prompt_tokens":19,"completion_tokens":2,"total_tokens":21,'
        '"prompt_tokens_details":{"cached_tokens":0}}}\n\n'
        "data: [DONE]\n\n"
    )


def test_line_ends_of_every_kind_are_escaped() -> None:
    text = "a\u0085b\u2028c\u2029d\x0be\x0cf\x1cg\rh\né"
    frame = data_frame({"text": text})
    assert frame.endswith(b"\n\n")
    assert len(frame.decode().splitlines()) == 2
    assert frame.isascii()
    assert json.loads(frame.removeprefix(b"data: ")) == {"text": text}


def test_no_character_is_cut_in_two(make_server: MakeServer) -> None:
    server = make_server(alphabet=tuple("é".encode()))
    chunks = server.chunks(CHAT, HI | {"max_tokens": 40})
    for chunk in chunks:
        chunk["choices"][0]["delta"].get("content", "").encode()
    whole = server.post(CHAT, HI | {"max_tokens": 40, "stream": False}).json()["choices"][0]["message"]["content"]
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks) == whole


def test_error_before_the_first_frame_is_an_http_error(server: FakeServer) -> None:
    def fail(*_: object) -> None:
        raise StepError("broken")

    server.executor.before_step = fail
    response = server.post(CHAT, HI)
    assert response.status_code == 500
    assert response.json()["error"]["type"] == "server_error"
    assert response.headers["x-request-id"] in response.json()["error"]["message"]


def test_error_in_a_running_stream_is_a_frame_then_done(server: FakeServer) -> None:
    def poison(batch: object, logits: object) -> None:
        if len(server.executor.batches) == 3:
            logits[:] = float("nan")  # type: ignore[index]

    server.executor.after_step = poison
    response = server.post(CHAT, HI | {"max_tokens": 10})
    assert response.status_code == 200
    *chunks, error, done = response.text.removesuffix("\n\n").split("\n\n")
    assert done == "data: [DONE]"
    assert json.loads(error.removeprefix("data: "))["error"]["code"] == "numerical_error"
    assert "chat.completion.chunk" in chunks[-1]
    assert issubclass(NumericalError, Exception)


def test_silence_is_filled_with_comments(make_server: MakeServer, run_live: Callable[[ServerState], str]) -> None:
    server = make_server(heartbeat_s=0.1)
    gate = Gate(server.executor)
    address = run_live(server.state)
    with httpx.stream("POST", f"{address}{CHAT}", json=HI) as response:
        lines = response.iter_lines()
        assert next(lines) == ": heartbeat"
        assert next(lines) == ""
        assert next(lines) == ": heartbeat"
        gate.open()
        data = [line for line in lines if line and not line.startswith(":")]
    assert data[-1] == "data: [DONE]"
    assert json.loads(data[0].removeprefix("data: "))["choices"][0]["delta"]["role"] == "assistant"
