"""A streamed ``/v1/completions`` request, timed at the client. Both engines serve it."""

from __future__ import annotations

import contextlib
import http.client
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
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
    """Continue greedily by exactly ``max_tokens`` tokens (at least 2).

    Args:
        address: the server's URL.
    """
    body = {
        "prompt": list(prompt_ids),
        "max_tokens": max_tokens,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=TIMEOUT_S)
    with contextlib.closing(connection):
        started = time.perf_counter()
        connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
        response = connection.getresponse()
        if response.status != http.client.OK:
            raise RuntimeError(f"{address} answered {response.status}: {response.read()[:500]!r}")
        times, num_tokens = [], 0
        for line in response:
            if not line.startswith(b"data: {"):
                continue
            now, chunk = time.perf_counter(), json.loads(line[len(b"data: ") :])
            if any(choice["text"] for choice in chunk["choices"]):
                times.append(now)
            if chunk.get("usage"):
                num_tokens = chunk["usage"]["completion_tokens"]
    assert num_tokens == max_tokens, "the answer has another length than asked for"
    return StreamTimes(times[0] - started, (times[-1] - times[0]) / (num_tokens - 1))
