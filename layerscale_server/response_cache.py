"""Answers kept for exact repeats of requests whose answer is determined: greedy ones, and those with a seed.

A repeat is told by all that determines an answer, compared in full: the prompt's tokens, every sampling parameter, the
grammar, and on whose behalf it is asked. The model is no part of it: a cache begins and ends with one loaded model.
"""

from __future__ import annotations

import sys
from array import array
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, fields, replace

from layerscale_core.engine import Event, Finished, PromptScored, Request, SamplingParams, TokenLogprob, TokensGenerated
from layerscale_core.specs import Priority

Deliver = Callable[[Event], None]

_ENTRY_BYTES = 1000  # what an answer takes whatever it says: its events, their usage, its place in the cache
_TOKEN_BYTES = 40  # an int, and its place in a tuple
_LOGPROB_BYTES = 160  # a token's log-probability, or an alternative's, with its numbers


@dataclass(frozen=True, slots=True)
class ResponseCacheStats:
    """Requests found and not found so far, and the memory that is taken now."""

    num_hits: int
    num_misses: int
    num_bytes: int


class ResponseCache:
    """The answers that were used last, in bounded memory. Event loop only.

    Args:
        max_bytes: of keys and answers together.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._kept: OrderedDict[Hashable, tuple[tuple[Event, ...], int]] = OrderedDict()
        self._num_bytes = self._num_hits = self._num_misses = 0

    def stats(self) -> ResponseCacheStats:
        """The counts now. Any thread."""
        return ResponseCacheStats(self._num_hits, self._num_misses, self._num_bytes)

    def find(self, key: Hashable) -> tuple[Event, ...] | None:
        """The events of an earlier answer, the last of them terminal; it counts as used."""
        if key not in self._kept:
            self._num_misses += 1
            return None
        self._num_hits += 1
        self._kept.move_to_end(key)
        return self._kept[key][0]

    def recording(self, key: Hashable, deliver: Deliver) -> Deliver:
        """Deliver events, and keep the answer that they are once it has ended as it should."""
        events: list[Event] = []

        def record(event: Event) -> None:
            events.append(event)
            if isinstance(event, Finished):
                self._keep(key, _whole(events))
            deliver(event)

        return record

    def _keep(self, key: Hashable, answer: tuple[Event, ...]) -> None:
        num_bytes = _ENTRY_BYTES + _key_bytes(key) + sum(map(_event_bytes, answer))
        if key in self._kept or num_bytes > self._max_bytes:
            return  # it was computed twice at once, or there will never be room
        self._kept[key] = (answer, num_bytes)
        self._num_bytes += num_bytes
        while self._num_bytes > self._max_bytes:
            _, (_, freed) = self._kept.popitem(last=False)
            self._num_bytes -= freed


def response_key(request: Request) -> Hashable | None:
    """What determines the answer to a request; None where chance has a part in it, or where it is no client's question.

    A prefix that is computed ahead is of the latter kind: what is wanted of it is not its answer.
    """
    sampling = request.sampling
    if request.priority is not Priority.INTERACTIVE or (sampling.temperature > 0 and sampling.seed is None):
        return None
    parameters = [getattr(sampling, each.name) for each in fields(SamplingParams) if each.name != "logit_bias"]
    grammar = () if request.constraint is None else (request.constraint.grammar.kind, request.constraint.grammar.text)
    prompt = array("q", request.prompt_ids).tobytes()
    return (prompt, *parameters, frozenset(sampling.logit_bias.items()), grammar, request.cache_key)


def _whole(events: Sequence[Event]) -> tuple[Event, ...]:
    """An answer with the events of its tokens made one, as a repeat is to be told: all of its prompt was known."""
    scored = [event for event in events if isinstance(event, PromptScored)]
    generated = [event for event in events if isinstance(event, TokensGenerated)]
    end = events[-1]
    assert isinstance(end, Finished)
    usage = replace(end.usage, cached_tokens=end.usage.prompt_tokens)
    return (*scored, *_joined(generated), replace(end, usage=usage))


def _joined(generated: Sequence[TokensGenerated]) -> Iterable[TokensGenerated]:
    if generated:
        yield TokensGenerated(
            "".join(event.text for event in generated),
            tuple(token_id for event in generated for token_id in event.token_ids),
            tuple(logprob for event in generated for logprob in event.logprobs),
            generated[0].position,
        )


def _key_bytes(key: object) -> int:
    """What nested tuples and sets take in memory."""
    inner = sum(map(_key_bytes, key)) if isinstance(key, tuple | frozenset) else 0
    return sys.getsizeof(key) + inner


def _event_bytes(event: Event) -> int:
    """About what an event takes in memory, not less."""
    if isinstance(event, TokensGenerated):
        return sys.getsizeof(event.text) + _TOKEN_BYTES * len(event.token_ids) + _logprobs_bytes(event.logprobs)
    if isinstance(event, PromptScored):
        return _logprobs_bytes(event.logprobs)
    return 0


def _logprobs_bytes(logprobs: Iterable[TokenLogprob | None]) -> int:
    return sum(_LOGPROB_BYTES * (1 + (0 if each is None else len(each.top))) for each in logprobs)
