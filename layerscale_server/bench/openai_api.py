"""Streamed answers from any server with OpenAI's API, timed at the client."""

from __future__ import annotations

import itertools
import random
import re
import time
from dataclasses import dataclass
from typing import Any

from layerscale_server.bench.api_client import ApiClient
from layerscale_server.bench.errors import BenchmarkError

_WORDS = re.findall(
    r"\w+",
    """
    the of and to in is was for on that with as by at from it an are this which or be his were had not but they
    have one all their there been more when who will no if out so up into than only some time could them other
    """,
)
"""Common enough to be one token each for most models."""

_CALIBRATION_WORDS = (8, 40)


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of one request. Times are seconds since it was due.

    Attributes:
        due_s: that moment, in seconds since the load began.
        sent_s: when it was sent.
        piece_times_s: when each piece of the answer was received; a server may put several tokens into one.
        num_prompt_tokens, num_output_tokens: by the server's count, or else one a piece and 0 for the prompt.
        error: why it is no answer; None if it is one.
    """

    due_s: float
    sent_s: float
    piece_times_s: tuple[float, ...] = ()
    num_prompt_tokens: int = 0
    num_output_tokens: int = 0
    error: str | None = None

    @property
    def ttft_s(self) -> float:
        """Time to first token: due → first piece received."""
        return self.piece_times_s[0]

    @property
    def e2e_s(self) -> float:
        """End to end: due → last piece received."""
        return self.piece_times_s[-1]

    @property
    def tpot_s(self) -> float | None:
        """Time per output token: (last piece − first piece) ÷ (output tokens − 1); None of a single token."""
        if self.num_output_tokens < 2:
            return None
        return (self.e2e_s - self.ttft_s) / (self.num_output_tokens - 1)

    @property
    def gaps_s(self) -> list[float]:
        """Inter-token latencies: between each piece and the next."""
        return [after - before for before, after in itertools.pairwise(self.piece_times_s)]


class OpenAIServer:
    """A server's ``/v1/completions`` or ``/v1/chat/completions``, its texts measured in its model's tokens.

    Args:
        api: ``completions`` or ``chat``.
        model: its id; None = the first that the server lists.
        ignores_eos: answers get their full length, by a field that vLLM, llama.cpp and LayerScale know.
    """

    def __init__(self, client: ApiClient, api: str, model: str | None, *, ignores_eos: bool, seed: int) -> None:
        self._client = client
        self._path = "/v1/chat/completions" if api == "chat" else "/v1/completions"
        self._is_chat = api == "chat"
        self._ignores_eos = ignores_eos
        self._random = random.Random(seed)  # noqa: S311 (prompts, repeatable)
        self.model = model or self._first_model()
        few, many = (self._count_tokens(num_words) for num_words in _CALIBRATION_WORDS)
        self._tokens_per_word = max(0.1, (many - few) / (_CALIBRATION_WORDS[1] - _CALIBRATION_WORDS[0]))
        self._other_tokens = few - self._tokens_per_word * _CALIBRATION_WORDS[0]

    def prompt(self, num_tokens: int) -> str:
        """Random words that make a prompt of about so many tokens, a chat's template included."""
        return self._words(max(1, round((num_tokens - self._other_tokens) / self._tokens_per_word)))

    def ask(self, prompt: str, max_tokens: int, due_s: float, due: float) -> Answer:
        """Stream an answer; errors are part of what is measured.

        Args:
            due_s: when it was due, for the record.
            due: the same moment by ``time.perf_counter``.
        """
        sent_s = time.perf_counter() - due
        times: list[float] = []
        usage: dict[str, Any] = {}
        body = self._body(prompt, max_tokens) | {"stream": True, "stream_options": {"include_usage": True}}
        try:
            for moment, chunk in self._client.post_stream(self._path, body):
                if chunk.get("error"):
                    raise BenchmarkError(str(chunk["error"]))
                if any(map(_text_of, chunk.get("choices", ()))):
                    times.append(moment - due)
                usage = chunk.get("usage") or usage
            if not times:
                raise BenchmarkError("the answer has no text")
        except BenchmarkError as error:
            return Answer(due_s, sent_s, error=str(error))
        return Answer(
            due_s, sent_s, tuple(times), usage.get("prompt_tokens", 0), usage.get("completion_tokens", len(times))
        )

    def _body(self, prompt: str, max_tokens: int) -> dict[str, Any]:
        asked = {"messages": [{"role": "user", "content": prompt}]} if self._is_chat else {"prompt": prompt}
        sampling = {"max_tokens": max_tokens, "temperature": 0}
        return {"model": self.model} | asked | sampling | ({"ignore_eos": True} if self._ignores_eos else {})

    def _first_model(self) -> str:
        listed = self._client.request("GET", "/v1/models").get("data")
        if not listed:
            raise BenchmarkError(f"{self._client.address} lists no models; name one with --served-model")
        return str(listed[0]["id"])

    def _count_tokens(self, num_words: int) -> int:
        answer = self._client.request("POST", self._path, self._body(self._words(num_words), 1))
        return int(answer["usage"]["prompt_tokens"])

    def _words(self, count: int) -> str:
        return " ".join(self._random.choices(_WORDS, k=count))


def _text_of(choice: dict[str, Any]) -> str:
    delta = choice.get("delta", choice)
    return str(delta.get("text") or delta.get("content") or delta.get("reasoning_content") or "")
