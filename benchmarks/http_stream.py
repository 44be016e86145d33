"""Streamed requests, timed at the client."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from layerscale_server.bench.api_client import ApiClient


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
    with ApiClient(address) as client:
        started = time.perf_counter()
        for moment, chunk in client.post_stream("/v1/completions", completion_body(prompt_ids, max_tokens)):
            if any(choice["text"] for choice in chunk["choices"]):
                times.append(moment - started)
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
