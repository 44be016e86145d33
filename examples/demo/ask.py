"""One streamed question through the ``openai`` SDK, timed where the client sits."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass

from openai import OpenAI

MAX_TOKENS = 120


@dataclass(frozen=True)
class Timing:
    """What a client measured on a streamed answer.

    Attributes:
        first_token_s, last_token_s: seconds from sending the request to receiving them.
    """

    first_token_s: float
    last_token_s: float
    prompt_tokens: int
    output_tokens: int

    @property
    def per_output_token_s(self) -> float | None:
        """TPOT: the mean time of each token after the first; None if there is none."""
        if self.output_tokens < 2:
            return None
        return (self.last_token_s - self.first_token_s) / (self.output_tokens - 1)


@dataclass(frozen=True)
class Answer:
    """A finished answer."""

    model: str
    text: str
    timing: Timing


def ask(url: str, question: str, show: Callable[[str], None]) -> Answer:
    """Stream the model's answer to ``show``, piece by piece."""
    client = OpenAI(base_url=f"{url}/v1", api_key=os.environ.get("LAYERSCALE_LICENSE_KEY", "none"))
    model = client.models.list().data[0].id
    started = time.perf_counter()
    stream = client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": question}],
        max_tokens=MAX_TOKENS,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
    )
    pieces: list[str] = []
    arrivals: list[float] = []
    usage = None
    for chunk in stream:
        piece = chunk.choices[0].delta.content if chunk.choices else None
        if piece:
            arrivals.append(time.perf_counter() - started)
            pieces.append(piece)
            show(piece)
        usage = chunk.usage or usage
    assert usage is not None, "stream_options asked for it"
    arrivals = arrivals or [time.perf_counter() - started]  # an answer without text
    timing = Timing(arrivals[0], arrivals[-1], usage.prompt_tokens, usage.completion_tokens)
    return Answer(model, "".join(pieces), timing)
