"""What can be asked of a session, and where its tokens go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from layerscale_core.sessions.context import SessionContext, num_common


@dataclass(frozen=True, slots=True)
class TextPrompt:
    """Text that follows what the session holds: its data if there is any, else all that was said."""

    token_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ChatPrompt:
    """A whole conversation as the model's template writes it, BOS included where the model has one.

    Attributes:
        bos_id: what it loses where it follows something.
    """

    token_ids: tuple[int, ...]
    bos_id: int | None = None


@dataclass(frozen=True, slots=True)
class NoPrompt:
    """Go on from where the session ends."""


Prompt = TextPrompt | ChatPrompt | NoPrompt


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
    num_same = num_common(context.tokens[start:], token_ids)
    num_kept = max(durable_end, start + min(num_same, len(token_ids) - 1))
    return num_kept, token_ids[num_kept - start :]
