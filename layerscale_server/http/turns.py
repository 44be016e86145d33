"""A conversation's next turn, in a session or in none."""

from __future__ import annotations

from dataclasses import replace

from layerscale_core.engine import Request, SamplingParams
from layerscale_core.sessions import ChatPrompt, Session
from layerscale_core.specs import Priority
from layerscale_server.generation import Generation
from layerscale_server.http.conversations import PreparedTurn
from layerscale_server.state import LoadedModel


def begin_turn(
    model: LoadedModel,
    session: Session | None,
    request_id: str,
    turn: PreparedTurn,
    sampling: SamplingParams,
    *,
    clears_after: bool = False,
    is_warm_up: bool = False,
) -> Generation:
    """Hand a rendered conversation to the engine, or to the session that it belongs to.

    Args:
        clears_after: leave the session as it was.
        is_warm_up: it is expected to be asked soon: compute it ahead, without an answer, and hold up nobody.

    Raises:
        RequestError: it is not taken.
    """
    token_ids, constraint = tuple(turn.token_ids), turn.constraint
    sampling = replace(sampling, shown_token_ids=turn.plan.shown_token_ids)
    if session is not None:
        prompt = ChatPrompt(token_ids, _bos_id(model))
        if is_warm_up:
            return model.engine.warm_up(session, request_id, prompt)
        return model.engine.ask(session, request_id, prompt, sampling, clears_after=clears_after, constraint=constraint)
    if is_warm_up:
        return model.engine.submit([Request(request_id, token_ids, SamplingParams(0), Priority.FLASH)])
    return model.engine.submit([Request(request_id, token_ids, sampling, constraint=constraint)])


def _bos_id(model: LoadedModel) -> int | None:
    """What conversations begin with only because they are the beginning; None: nothing, or a token that opens turns."""
    assert model.dialogue is not None
    is_added = bool(model.tokenizer.encode("", add_special=True))
    return model.tokenizer.bos_id if is_added or "bos_token" in model.dialogue.variables else None
