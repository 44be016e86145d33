"""What entries arrive at and questions are asked of: any system of the streaming arms, and a LayerScale session."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from layerscale_server.bench.api_client import ApiClient
from layerscale_server.bench.errors import BenchmarkError

ANSWER_TOKENS = 6
_POLL_S = 0.005


@dataclass(frozen=True, slots=True)
class Query:
    """What a client saw of one question. Times are seconds from sending it.

    Attributes:
        tpot_s: (last token − first token) ÷ (output tokens − 1); 0 for an answer from the store.
        num_prefilled: tokens computed before the first one of the answer, by the server's own count.
        num_entries_seen: entries of the stream, from its beginning, that the answer has seen at least.
        is_stored: it was a registered question's answer.
    """

    ttft_s: float
    total_s: float
    tpot_s: float
    num_prefilled: int
    num_entries_seen: int
    is_stored: bool = False


class System(Protocol):
    """Something that follows a stream. ``window`` is the most entries that questions are about."""

    name: str

    def begin(self, window: int) -> None:
        """Start with an empty stream."""
        ...

    def arrive(self) -> None:
        """The stream's next entry has come; returns at once."""
        ...

    def settle(self) -> None:
        """Wait until nothing more is done with what has come."""
        ...

    def ask(self) -> Query:
        """Ask about the newest entries."""
        ...


@dataclass(frozen=True, slots=True)
class Feed:
    """What a session is about.

    Attributes:
        stream_type: of the entries.
        prefix: text before them.
        question: text after them.
        entries: the oldest first; at least as many as will arrive.
    """

    stream_type: str
    prefix: str
    question: str
    entries: Sequence[Mapping[str, Any]]


class SessionFollower:
    """A session of a LayerScale server: entries are pushed as they come, and a question is only itself.

    Attributes:
        prefix_len: tokens of the prefix, by the server's count.
    """

    def __init__(self, name: str, client: ApiClient, feed: Feed, *, is_registered: bool = False) -> None:
        self.name = name
        self.prefix_len = 0
        self._client = client
        self._feed = feed
        self._is_registered = is_registered
        self._session = ""
        self._window = self._num_entries = 0
        self._known_versions: dict[int, int] = {}

    def begin(self, window: int) -> None:
        """Make a session in place of the one before."""
        self.end()
        body: dict[str, Any] = {"type": self._feed.stream_type, "prompt": self._feed.prefix, "window_size": window}
        if self._is_registered:
            body["flash"] = [{"query": self._feed.question, "max_tokens": ANSWER_TOKENS}]
        made = self._client.request("POST", "/v1/sessions/init", body)
        self.prefix_len = made["n_tokens"]
        self._session = f"/v1/sessions/{made['session_id']}"
        self._client.request("POST", f"{self._session}/mark_prefix", {})
        self._window, self._num_entries, self._known_versions = made["window_size"], 0, {0: 0}

    def end(self) -> None:
        """Delete the session, if there is one."""
        if self._session:
            self._client.request("DELETE", self._session)
            self._session = ""

    def arrive(self) -> None:
        """Push it."""
        entry = self._feed.entries[self._num_entries]
        ack = self._client.request("POST", f"{self._session}/stream/push", {"data": [entry]})
        if ack["pushed"] != 1:
            raise BenchmarkError("the server has dropped an entry: they come faster than its queue empties")
        self._num_entries += 1

    def settle(self) -> None:
        """Wait until every entry is in the KV cache, and a registered question is answered from all of them.

        Raises:
            BenchmarkError: the session does not hold as many entries as the arm is about.
        """
        while self._note_version() < self._num_entries or not self._is_answered():
            time.sleep(_POLL_S)
        wanted = min(self._num_entries, self._window)
        state = self._client.request("GET", f"{self._session}/state")
        if state["data_count"] < wanted:
            raise BenchmarkError(
                f"the session holds {state['data_count']} of {wanted} entries, for its context is {state['context']} "
                "tokens: ask at smaller sizes, or of a server with a longer context"
            )

    def ask(self) -> Query:
        """Send the question alone."""
        times: list[float] = []
        end: Mapping[str, Any] = {}
        body = {"prompt": self._feed.question, "max_tokens": ANSWER_TOKENS, "stream": True}
        started = time.perf_counter()
        for moment, event in self._client.post_stream(f"{self._session}/generate", body):
            if event.get("done"):
                end = event
            elif event.get("token"):
                times.append(moment - started)
        if not times or "n_tokens" not in end:
            raise BenchmarkError("a question was not answered")
        self._note_version()
        seen = max(entries for version, entries in self._known_versions.items() if version <= end["data_version"])
        is_stored = bool(end.get("flash"))
        tpot_s = 0.0 if is_stored else (times[-1] - times[0]) / max(1, end["n_tokens"] - 1)
        return Query(times[0], times[-1], tpot_s, end["n_prefilled"], seen, is_stored)

    def _note_version(self) -> int:
        """Learn how many entries the present version of the data is about; returns how many."""
        statistics = self._client.request("GET", f"{self._session}/stream/status")["statistics"]
        self._known_versions[statistics["batches_processed"]] = statistics["items_processed"]
        return int(statistics["items_processed"])

    def _is_answered(self) -> bool:
        stored = self._client.request("GET", f"{self._session}/flash")
        return all(each["data_version"] == stored["current_data_version"] for each in stored["flash_queries"])
