"""A conversation's next turn, in a session or in none."""

from __future__ import annotations

from collections.abc import Sequence

from layerscale_core.constraints import Constraint
from layerscale_core.engine import Request, SamplingParams
from layerscale_core.sessions import ChatPrompt, Session
from layerscale_server.generation import Generation
from layerscale_server.state import LoadedModel


def begin_turn(
    model: LoadedModel,
    session: Session | None,
    request_id: str,
    prompt: Sequence[int],
    sampling: SamplingParams,
    *,
    constraint: Constraint | None = None,
) -> Generation:
    """Hand a rendered conversation to the engine, or to the session that it belongs to.

    Raises:
        RequestError: it is not taken.
    """
    if session is None:
        return model.engine.submit([Request(request_id, tuple(prompt), sampling, constraint=constraint)])
    in_session = ChatPrompt(tuple(prompt), model.tokenizer.bos_id)
    return model.engine.ask(session, request_id, in_session, sampling, constraint=constraint)
