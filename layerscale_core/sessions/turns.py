"""A question to a session, from its first token to its terminal event."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

from layerscale_core.constraints import Constraint
from layerscale_core.engine import SamplingParams
from layerscale_core.engine.faults import contained
from layerscale_core.engine.request import (
    Cancelled,
    Event,
    EventSink,
    Failed,
    Finished,
    FinishReason,
    TerminalEvent,
    TokensGenerated,
    Usage,
)
from layerscale_core.errors import ContextLengthError, InvalidRequestError, RequestError
from layerscale_core.sessions.context import SessionContext, num_common
from layerscale_core.sessions.prompts import ChatPrompt, NoPrompt, Prompt, place
from layerscale_core.specs.scheduler import Priority

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnFinished(Finished):
    """A turn's terminal event.

    Attributes:
        num_generated: tokens of the answer.
        num_prefilled: tokens computed before the first one of the answer, those that were pending included.
        total_tokens: tokens the session holds now.
        pos_max: its highest position; -1 when it is empty.
        data_version: what the answer is based on.
    """

    num_generated: int
    num_prefilled: int
    total_tokens: int
    pos_max: int
    data_version: int


@dataclass(eq=False, slots=True)
class Turn:
    """One question on its way through a session.

    Attributes:
        request_id: for cancellation and logs.
        clears_after: leave the session as it was.
        constraint: what the answer must match.
        is_warm_up: the prompt is a conversation that is expected: it is computed and not held, and gives way to
            whatever comes.
        data_version: what the answer is based on.
        tail: what followed the durable tokens, and comes back unless the turn is kept; None before it has begun.
        num_new: tokens of its prompt that the session did not hold.
        num_prefilled: tokens computed before the first one of the answer.
        generated: tokens of the answer so far.
    """

    request_id: str
    prompt: Prompt
    sampling: SamplingParams
    sink: EventSink
    clears_after: bool = False
    constraint: Constraint | None = None
    is_warm_up: bool = False
    data_version: int = 0
    tail: list[int] | None = None
    num_new: int = 0
    num_prefilled: int = 0
    generated: list[int] = field(default_factory=list)

    @property
    def priority(self) -> Priority:
        """The class of work: nobody waits for a warm-up."""
        return Priority.FLASH if self.is_warm_up else Priority.INTERACTIVE

    def begin(self, context: SessionContext, data_version: int) -> None:
        """Put the prompt in its place; ``num_prefilled`` tokens, at least one, are left to compute.

        Raises:
            ContextLengthError, InvalidRequestError: it cannot be; the session is as it was.
        """
        self.tail = context.tokens[context.durable_end :]
        if isinstance(self.prompt, ChatPrompt):
            context.take_warmed()
        else:
            context.drop_warmed()
        num_kept, new = place(self.prompt, context)
        if num_kept + len(new) >= context.context_len:
            param = "messages" if isinstance(self.prompt, ChatPrompt) else "prompt"
            raise ContextLengthError(num_kept + len(new), context.context_len, param=param)
        if num_kept + len(new) == 0:
            raise InvalidRequestError("prompt is needed: the session holds nothing to go on from", param="prompt")
        if isinstance(self.prompt, ChatPrompt) and num_kept < len(context.tokens):
            logger.debug(
                "request %s: the conversation parts from what its session holds at token %d of %d",
                self.request_id,
                num_kept,
                len(context.tokens),
            )
        self.data_version, self.num_new = data_version, len(new)
        context.replace_tail(num_kept, new)
        context.uncompute(len(context.tokens) - 1)
        context.make_positions(self.sampling.max_tokens)
        self.num_prefilled = len(context.tokens) - context.num_computed

    def collect(self, event: Event) -> None:
        """Take in what was generated, and pass it on."""
        if isinstance(event, TokensGenerated):
            self.generated += event.token_ids
        self.sink(event)

    def settle(self, context: SessionContext, event: TerminalEvent) -> TerminalEvent:
        """Keep the turn, or leave no trace of it; returns what its client is told."""
        if self.is_warm_up and not isinstance(event, Failed):
            event = self._keep_warm(context)
        elif not isinstance(event, Finished):
            self.undo(context)
            return event
        elif self.clears_after:
            self.undo(context)
        else:
            context.tokens += self.generated
        return TurnFinished(
            event.reason,
            self._usage(event),
            event.text,
            event.stop_text,
            event.logit_gap,
            event.is_early,
            num_generated=event.usage.completion_tokens,
            num_prefilled=self.num_prefilled,
            total_tokens=len(context.tokens),
            pos_max=context.pos_max,
            data_version=self.data_version,
        )

    def _keep_warm(self, context: SessionContext) -> Finished:
        """Keep what was computed, all or not; the session holds what it held before."""
        assert self.tail is not None
        self.num_prefilled -= len(context.tokens) - context.num_computed
        context.keep_warm(self.tail)
        return Finished(FinishReason.LENGTH, Usage(0, 0))

    def undo(self, context: SessionContext) -> None:
        """Put back what the session held before the turn."""
        if self.tail is not None:
            num_same = num_common(self.tail, context.tokens[context.durable_end :])
            context.replace_tail(context.durable_end + num_same, self.tail[num_same:])

    def end(self, event: TerminalEvent) -> None:
        """Tell its client how it ended."""
        contained(self.sink, event, "the sink of request %s failed", self.request_id)

    def fail(self, error: RequestError) -> None:
        """Tell its client that it will not be answered."""
        self.end(Failed(error))

    def cancel(self) -> None:
        """Tell its client that it was cancelled before it began."""
        self.end(Cancelled())

    def _usage(self, end: Finished) -> Usage:
        """Token counts of the prompt as the client gave it."""
        prompt_tokens = 0 if isinstance(self.prompt, NoPrompt) else len(self.prompt.token_ids)
        return Usage(prompt_tokens, end.usage.completion_tokens, max(0, prompt_tokens - self.num_new))
