"""What bars arrive at and questions are asked of: a session, or a server that is sent everything again."""

from __future__ import annotations

import contextlib
import http.client
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urlsplit

from http_stream import TIMEOUT_S, completion_body, post_stream
from market_bars import PREFIX, QUESTION, Market

ANSWER_TOKENS = 6
_POLL_S = 0.005


@dataclass(frozen=True, slots=True)
class Query:
    """What a client saw of one question. Times are seconds from sending it.

    Attributes:
        tpot_s: (last token − first token) ÷ (output tokens − 1); 0 for an answer from the store.
        num_prefilled: tokens computed before the first one of the answer, by the server's own count.
        num_bars_seen: bars of the stream, from its beginning, that the answer has seen at least.
        is_stored: it was a registered question's answer.
    """

    ttft_s: float
    total_s: float
    tpot_s: float
    num_prefilled: int
    num_bars_seen: int
    is_stored: bool = False


class System(Protocol):
    """Something that follows a stream. ``window`` is the most bars that questions are about."""

    name: str

    def begin(self, window: int) -> None:
        """Start with an empty stream."""
        ...

    def arrive(self) -> None:
        """The stream's next bar has come; returns at once."""
        ...

    def settle(self) -> None:
        """Wait until nothing more is done with what has come."""
        ...

    def ask(self) -> Query:
        """Ask about the newest bars."""
        ...


class Rereader:
    """A server without sessions: each question carries all that it is about, and a prompt cache may know a part."""

    def __init__(self, name: str, address: str, market: Market) -> None:
        self.name = name
        self._address = address
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
        for seconds, chunk in post_stream(self._address, "/v1/completions", body):
            if any(choice["text"] for choice in chunk["choices"]):
                times.append(seconds)
            usage = chunk.get("usage") or usage
        assert usage["completion_tokens"] == ANSWER_TOKENS
        assert usage["prompt_tokens"] == len(prompt)
        num_prefilled = len(prompt) - usage["prompt_tokens_details"]["cached_tokens"]
        tpot_s = (times[-1] - times[0]) / (ANSWER_TOKENS - 1)
        return Query(times[0], times[-1], tpot_s, num_prefilled, self._num_bars)


class SessionFollower:
    """A session of a LayerScale server: bars are pushed as they come, and a question is only itself."""

    def __init__(self, name: str, address: str, market: Market, *, is_registered: bool = False) -> None:
        self.name = name
        self._address = address
        self._market = market
        self._is_registered = is_registered
        self._session = ""
        self._num_bars = 0
        self._known_versions: dict[int, int] = {}

    def begin(self, window: int) -> None:
        """Make a session in place of the one before."""
        self.end()
        body: dict[str, Any] = {"type": "ohlcv", "prompt": PREFIX, "window_size": window}
        if self._is_registered:
            body["flash"] = [{"query": QUESTION, "max_tokens": ANSWER_TOKENS}]
        made = self._request("POST", "/v1/sessions/init", body)
        assert made["n_tokens"] == len(self._market.prefix_ids)
        self._session = f"/v1/sessions/{made['session_id']}"
        self._request("POST", f"{self._session}/mark_prefix", {})
        self._num_bars, self._known_versions = 0, {0: 0}

    def end(self) -> None:
        """Delete the session, if there is one."""
        if self._session:
            self._request("DELETE", self._session)
            self._session = ""

    def arrive(self) -> None:
        """Push it."""
        ack = self._request("POST", f"{self._session}/stream/push", {"data": [self._market.bars[self._num_bars].entry]})
        assert ack["pushed"] == 1
        self._num_bars += 1

    def settle(self) -> None:
        """Wait until every bar is in the KV cache, and a registered question is answered from all of them."""
        while self._note_version() < self._num_bars or not self._is_answered():
            time.sleep(_POLL_S)

    def ask(self) -> Query:
        """Send the question alone."""
        times: list[float] = []
        end: Mapping[str, Any] = {}
        body = {"prompt": QUESTION, "max_tokens": ANSWER_TOKENS, "stream": True}
        for seconds, chunk in post_stream(self._address, f"{self._session}/generate", body):
            if chunk.get("done"):
                end = chunk
            elif chunk["token"]:
                times.append(seconds)
        assert end["n_tokens"] == ANSWER_TOKENS
        self._note_version()
        num_bars_seen = max(bars for version, bars in self._known_versions.items() if version <= end["data_version"])
        is_stored = bool(end.get("flash"))
        tpot_s = 0.0 if is_stored else (times[-1] - times[0]) / (ANSWER_TOKENS - 1)
        return Query(times[0], times[-1], tpot_s, end["n_prefilled"], num_bars_seen, is_stored)

    def _note_version(self) -> int:
        """Learn how many bars the present version of the data is about; returns how many."""
        statistics = self._request("GET", f"{self._session}/stream/status")["statistics"]
        self._known_versions[statistics["batches_processed"]] = statistics["items_processed"]
        return int(statistics["items_processed"])

    def _is_answered(self) -> bool:
        stored = self._request("GET", f"{self._session}/flash")
        return all(each["data_version"] == stored["current_data_version"] for each in stored["flash_queries"])

    def _request(self, method: str, path: str, body: Mapping[str, object] | None = None) -> dict[str, Any]:
        connection = http.client.HTTPConnection(urlsplit(self._address).netloc, timeout=TIMEOUT_S)
        with contextlib.closing(connection):
            content = None if body is None else json.dumps(body)
            connection.request(method, path, content, {"Content-Type": "application/json"})
            response = connection.getresponse()
            answer = response.read()
        if response.status != http.client.OK:
            raise RuntimeError(f"{path} answered {response.status}: {answer[:500]!r}")
        return dict(json.loads(answer))
