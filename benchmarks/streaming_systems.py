"""What a session is compared with: a server that is sent everything again."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from http_stream import completion_body
from market_bars import Market

from layerscale_server.bench.api_client import ApiClient
from layerscale_server.bench.stream_session import ANSWER_TOKENS, Query


class Rereader:
    """A server without sessions: each question carries all that it is about, and a prompt cache may know a part."""

    def __init__(self, name: str, client: ApiClient, market: Market) -> None:
        self.name = name
        self._client = client
        self._market = market
        self._window = self._num_bars = 0

    def begin(self, window: int) -> None:
        """Forget the bars."""
        self._window, self._num_bars = window, 0

    def arrive(self) -> None:
        """Nothing to do before the question."""
        self._num_bars += 1

    def settle(self) -> None:
        """Nothing is ever done."""

    def ask(self) -> Query:
        """Send the window."""
        prompt = self._market.prompt(max(0, self._num_bars - self._window), self._num_bars)
        times: list[float] = []
        usage: Mapping[str, Any] = {}
        body = completion_body(prompt, ANSWER_TOKENS)
        started = time.perf_counter()
        for moment, chunk in self._client.post_stream("/v1/completions", body):
            if any(choice["text"] for choice in chunk["choices"]):
                times.append(moment - started)
            usage = chunk.get("usage") or usage
        assert usage["completion_tokens"] == ANSWER_TOKENS
        assert usage["prompt_tokens"] == len(prompt)
        num_prefilled = len(prompt) - usage["prompt_tokens_details"]["cached_tokens"]
        tpot_s = (times[-1] - times[0]) / (ANSWER_TOKENS - 1)
        return Query(times[0], times[-1], tpot_s, num_prefilled, self._num_bars)
