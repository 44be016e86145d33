"""A question to a session: where its tokens go, and what comes back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from layerscale_core.engine import SamplingParams
from layerscale_core.engine.request import EventSink, Finished, Usage
from layerscale_core.errors import ContextLengthError, InvalidRequestError
from layerscale_core.sessions.context import SessionContext


@dataclass(frozen=True, slots=True)
class TextPrompt:
    """Text that follows what the session holds: its data if there is any, else all that was said."""

    token_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ChatPrompt:
    """A whole conversation as the model's template writes it, BOS included where the model has one."""

    token_ids: tuple[int, ...]
    bos_id: int | None = None


@dataclass(frozen=True, slots=True)
class NoPrompt:
    """Go on from where the session ends."""


Prompt = TextPrompt | ChatPrompt | NoPrompt


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
        has_begun: its prompt is in its place.
        num_kept: tokens of the session that the turn builds on.
        num_computed: tokens that were in the pool when it began.
        num_new: tokens of its prompt that the session did not hold.
        generated: tokens of the answer so far.
    """

    request_id: str
    prompt: Prompt
    sampling: SamplingParams
    sink: EventSink
    clears_after: bool = False
    has_begun: bool = False
    num_kept: int = 0
    num_computed: int = 0
    num_new: int = 0
    data_version: int = 0
    generated: list[int] = field(default_factory=list)

    def begin(self, context: SessionContext) -> None:
        """Put the prompt in its place; at least one token is left to compute.

        Raises:
            ContextLengthError, InvalidRequestError: it cannot be; the session is as it was.
        """
        num_kept, new = place(self.prompt, context)
        if num_kept + len(new) >= context.context_len:
            param = "messages" if isinstance(self.prompt, ChatPrompt) else "prompt"
            raise ContextLengthError(num_kept + len(new), context.context_len, param=param)
        if num_kept + len(new) == 0:
            raise InvalidRequestError("prompt is needed: the session holds nothing to go on from", param="prompt")
        context.truncate(num_kept)
        context.tokens += new
        context.uncompute(len(context.tokens) - 1)
        self.num_kept, self.num_new, self.num_computed = num_kept, len(new), context.num_computed
        self.has_begun = True

    def usage(self, end: Finished) -> Usage:
        """Token counts of the prompt as the client gave it."""
        prompt_tokens = 0 if isinstance(self.prompt, NoPrompt) else len(self.prompt.token_ids)
        return Usage(prompt_tokens, end.usage.completion_tokens, max(0, prompt_tokens - self.num_new))


def place(prompt: Prompt, context: SessionContext) -> tuple[int, Sequence[int]]:
    """How many of a session's tokens a prompt builds on, and the tokens that follow them."""
    match prompt:
        case TextPrompt(token_ids):
            return context.durable_end if context.has_data else len(context.tokens), token_ids
        case ChatPrompt():
            return _place_conversation(prompt, context)
        case NoPrompt():
            return len(context.tokens), ()


def _place_conversation(prompt: ChatPrompt, context: SessionContext) -> tuple[int, Sequence[int]]:
    """A conversation that begins with all that is durable continues it; any other goes into the tail, without BOS."""
    durable_end, token_ids = context.durable_end, prompt.token_ids
    start = 0
    if list(token_ids[:durable_end]) != context.tokens[:durable_end]:
        start = durable_end
        if durable_end and token_ids and token_ids[0] == prompt.bos_id:
            token_ids = token_ids[1:]
    num_common = _num_common(context.tokens, start, token_ids)
    num_kept = max(durable_end, start + min(num_common, len(token_ids) - 1))
    return num_kept, token_ids[num_kept - start :]


def _num_common(held: Sequence[int], start: int, token_ids: Sequence[int]) -> int:
    num_common = 0
    for ours, theirs in zip(held[start:], token_ids, strict=False):
        if ours != theirs:
            break
        num_common += 1
    return num_common
