"""A conversation's next turn, in a session or in none."""

from __future__ import annotations

from collections.abc import Sequence

from layerscale_core.engine import Request, SamplingParams
from layerscale_core.sessions import ChatPrompt, Session
from layerscale_core.specs import Priority
from layerscale_server.generation import Generation
from layerscale_server.state import LoadedModel


def begin_turn(
    model: LoadedModel,
    session: Session | None,
    request_id: str,
    prompt: Sequence[int],
    sampling: SamplingParams,
    *,
    is_warm_up: bool = False,
) -> Generation:
    """Hand a rendered conversation to the engine, or to the session that it belongs to.

    Args:
        is_warm_up: it is expected to be asked soon: compute it ahead, without an answer, and hold up nobody.

    Raises:
        RequestError: it is not taken.
    """
    if session is not None:
        chat = ChatPrompt(tuple(prompt), model.tokenizer.bos_id)
        if is_warm_up:
            return model.engine.warm_up(session, request_id, chat)
        return model.engine.ask(session, request_id, chat, sampling)
    if is_warm_up:
        return model.engine.submit([Request(request_id, tuple(prompt), SamplingParams(0), Priority.FLASH)])
    return model.engine.submit([Request(request_id, tuple(prompt), sampling)])
