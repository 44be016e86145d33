"""What goes into the engine and what comes out: requests and their events."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass

from layerscale_core.constraints.matcher import Constraint
from layerscale_core.engine.sampling_params import SamplingParams
from layerscale_core.errors import RequestError
from layerscale_core.specs.scheduler import Priority


class FinishReason(enum.Enum):
    """Why generation ended, as clients are told."""

    STOP = "stop"
    LENGTH = "length"


@dataclass(frozen=True, slots=True)
class Request:
    """One token stream asked of the engine.

    Attributes:
        request_id: unique among live requests; for cancellation and logs.
        prompt_ids: at least one token.
        cache_key: on whose behalf it is made; prefixes are shared among equal keys only.
        constraint: what the answer must match. Tokens that it forces are taken over without being sampled; where it
            allows an end, the model's stop tokens end the answer, ``ignore_eos`` or not, and where it allows nothing
            else, the answer ends by itself. ``early_gap`` has no effect then.
    """

    request_id: str
    prompt_ids: tuple[int, ...]
    sampling: SamplingParams
    priority: Priority = Priority.INTERACTIVE
    cache_key: str = ""
    constraint: Constraint | None = None


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token's log-probability under the unmodified distribution, with the likeliest alternatives, best first."""

    token_id: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts of a finished request.

    Attributes:
        cached_tokens: of the prompt's, those found in the prefix cache.
    """

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0


@dataclass(frozen=True, slots=True)
class PromptScored:
    """The prompt's log-probabilities, sent once before the first token when ``prompt_logprobs`` was asked.

    Attributes:
        logprobs: one per prompt token; the first is None: nothing predicts it.
    """

    logprobs: tuple[TokenLogprob | None, ...]


@dataclass(frozen=True, slots=True)
class TokensGenerated:
    """New output that can be shown: a token that was sampled, and those behind it that a constraint forced.

    A step gives several of these where a draft came true.

    Attributes:
        text: may be empty while bytes of a character, or a possible stop text, are held back.
        token_ids: the new tokens.
        logprobs: one per token when asked for, else empty.
        position: of the first of these tokens in its sequence.
    """

    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[TokenLogprob, ...] = ()
    position: int = 0


@dataclass(frozen=True, slots=True)
class Finished:
    """Terminal: generation ended as it should.

    Attributes:
        text: what was held back and is shown after all.
        stop_text: the stop text that was met, or None.
        logit_gap: how far the likeliest first token was ahead of the second, in logits, when that was asked for.
        is_early: the first token was the whole answer, because its logit gap was wide enough.
    """

    reason: FinishReason
    usage: Usage
    text: str = ""
    stop_text: str | None = None
    logit_gap: float | None = None
    is_early: bool = False


@dataclass(frozen=True, slots=True)
class Failed:
    """Terminal: the request ends with an error; its neighbours are not concerned."""

    error: RequestError


@dataclass(frozen=True, slots=True)
class Cancelled:
    """Terminal: the client cancelled."""


Event = PromptScored | TokensGenerated | Finished | Failed | Cancelled
TerminalEvent = Finished | Failed | Cancelled

EventSink = Callable[[Event], None]
"""Receives a request's events in order on the engine thread; must return at once.

Exactly one event is terminal, and it is the last."""
