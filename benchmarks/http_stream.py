"""Streamed requests, timed at the client."""

from __future__ import annotations

import contextlib
import http.client
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

TIMEOUT_S = 300


@dataclass(frozen=True, slots=True)
class StreamTimes:
    """What a client of a stream sees.

    Attributes:
        ttft_s: from sending the request to the first event.
        tpot_s: (last token − first token) ÷ (output tokens − 1).
    """

    ttft_s: float
    tpot_s: float


def stream_completion(address: str, prompt_ids: Sequence[int], max_tokens: int) -> StreamTimes:
    """Continue greedily by exactly ``max_tokens`` tokens (at least 2), on ``/v1/completions``. Both engines serve it.

    Args:
        address: the server's URL.
    """
    times, num_tokens = [], 0
    for seconds, chunk in post_stream(address, "/v1/completions", completion_body(prompt_ids, max_tokens)):
        if any(choice["text"] for choice in chunk["choices"]):
            times.append(seconds)
        if chunk.get("usage"):
            num_tokens = chunk["usage"]["completion_tokens"]
    assert num_tokens == max_tokens, "the answer has another length than asked for"
    return StreamTimes(times[0], (times[-1] - times[0]) / (num_tokens - 1))


def completion_body(prompt_ids: Sequence[int], max_tokens: int) -> dict[str, Any]:
    """The body of a greedy, streamed ``/v1/completions`` that ends with ``max_tokens`` tokens and their usage."""
    return {
        "prompt": list(prompt_ids),
        "max_tokens": max_tokens,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def post_stream(address: str, path: str, body: Mapping[str, object]) -> Iterator[tuple[float, dict[str, Any]]]:
    """The events of a streamed answer, each with the seconds from sending the request to receiving it."""
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=TIMEOUT_S)
    with contextlib.closing(connection):
        started = time.perf_counter()
        connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        response = connection.getresponse()
        if response.status != http.client.OK:
            raise RuntimeError(f"{address}{path} answered {response.status}: {response.read()[:500]!r}")
        for line in response:
            if line.startswith(b"data: {"):
                yield time.perf_counter() - started, json.loads(line[len(b"data: ") :])
