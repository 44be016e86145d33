"""What the routes that generate have in common: whole answers, their head, and the usage."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from layerscale_core.engine.request import Finished, PromptScored, TokenLogprob, TokensGenerated, Usage
from layerscale_server.generation import Generation


@dataclass(slots=True)
class Answer:
    """One sequence's output, complete once ``end`` is there."""

    text: str = ""
    logprobs: list[TokenLogprob] = field(default_factory=list)
    prompt_logprobs: tuple[TokenLogprob | None, ...] = ()
    end: Finished = field(init=False)


async def collect(generation: Generation, num_answers: int) -> list[Answer]:
    """Wait for all sequences of a generation.

    Raises:
        RequestError: one of them failed.
        ClientGoneError: the client left.
    """
    answers = [Answer() for _ in range(num_answers)]
    pieces: list[list[str]] = [[] for _ in range(num_answers)]
    async for batch in generation.batches():
        for index, event in batch:
            answer = answers[index]
            if isinstance(event, TokensGenerated):
                pieces[index].append(event.text)
                answer.logprobs += event.logprobs
            elif isinstance(event, PromptScored):
                answer.prompt_logprobs = event.logprobs
            elif isinstance(event, Finished):
                answer.end = event
                answer.text = "".join(pieces[index]) + event.text
    return answers


def usage_of(usages: Iterable[Usage]) -> dict[str, Any]:
    """OpenAI's ``usage`` over all sequences of a request."""
    all_usages = list(usages)
    prompt_tokens = sum(usage.prompt_tokens for usage in all_usages)
    completion_tokens = sum(usage.completion_tokens for usage in all_usages)
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        "prompt_tokens_details": {"cached_tokens": sum(usage.cached_tokens for usage in all_usages)},
    }


@dataclass(frozen=True, slots=True)
class ResponseHead:
    """What a response and each of its chunks begin with."""

    id: str
    model: str
    created: int = field(default_factory=lambda: int(time.time()))

    def body(self, kind: str, choices: list[dict[str, Any]], usages: Iterable[Usage] | None = None) -> dict[str, Any]:
        """A whole response, or a chunk; ``kind`` is OpenAI's name of the object."""
        head = {"id": self.id, "object": kind, "created": self.created, "model": self.model, "choices": choices}
        return head if usages is None else head | {"usage": usage_of(usages)}
