"""``/v1/sessions``: sessions made, looked at, added to, and deleted."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Depends
from starlette.responses import JSONResponse, Response

from layerscale_core.sessions import NewFlashQuery, NewSession, Session, SessionView
from layerscale_server.http.dependencies import AcceptingSession, AcceptingSessions, Model, NamedSession, json_body
from layerscale_server.http.prompts import off_loop, prompt_ids
from layerscale_server.http.schemas.sessions import AppendRequest, NewSessionRequest
from layerscale_server.logging import name_session
from layerscale_server.state import LoadedModel

router = APIRouter(prefix="/v1/sessions")


@router.post("/init")
async def create(
    model: AcceptingSessions, body: Annotated[NewSessionRequest, Depends(json_body(NewSessionRequest))]
) -> Response:
    """Make a session."""
    new = await off_loop(_new_session, model, body)
    return opened(await asyncio.wrap_future(model.sessions.create(new)))


def opened(session: Session) -> Response:
    """What is said of a session that has just come into being."""
    view = session.view
    name_session(view.session_id)
    return JSONResponse(
        {
            "session_id": view.session_id,
            "type": view.type,
            "n_tokens": view.num_tokens,
            "context": view.context_len,
            "window_size": view.window_size,
            "flash_queries": len(session.flash.queries),
            "pos_max": view.pos_max,
        }
    )


def _new_session(model: LoadedModel, body: NewSessionRequest) -> NewSession:
    """A session begins with BOS, where the model has one, even without a prompt."""
    return NewSession(
        body.type,
        tuple(prompt_ids(model, body.prompt or "")),
        body.context,
        body.window_size,
        tuple(
            NewFlashQuery(each.query, tuple(prompt_ids(model, each.query, add_special=False)), each.max_tokens)
            for each in body.flash
        ),
    )


@router.get("")
async def list_sessions(model: Model) -> Response:
    """Every session, in order of creation."""
    sessions = [_summary(session.view) for session in model.sessions.all()]
    return JSONResponse(
        {"sessions": sessions, "count": len(sessions), "max_sessions": model.sessions.limits.max_sessions}
    )


@router.get("/{session_id}/state")
async def state(model: Model, session: NamedSession) -> Response:
    """Where a session stands, with all the text it holds."""
    view, token_ids = await asyncio.wrap_future(session.describe())
    return await off_loop(_state, model, view, token_ids)


def _state(model: LoadedModel, view: SessionView, token_ids: Sequence[int]) -> Response:
    return JSONResponse(
        _summary(view)
        | {
            "type": view.type,
            "pos_min": view.pos_min,
            "pos_max": view.pos_max,
            "pos_next": view.pos_next,
            "data_region": {"start": view.data_start, "end": view.data_end, "window_size": view.window_size},
            "data_count": view.data_count,
            "pending_prefill": view.num_pending,
            "context_text": model.tokenizer.decode(token_ids, skip_special=False),
        }
    )


def _summary(view: SessionView) -> dict[str, Any]:
    return {
        "session_id": view.session_id,
        "n_tokens": view.num_tokens,
        "context": view.context_len,
        "prefix_end": view.prefix_end,
        "cache_usage": view.cache_usage,
        "created_at": view.created_at,
        "last_used_at": view.last_used_at,
        "in_use": view.is_busy,
    }


@router.delete("/{session_id}")
async def delete(model: Model, session_id: str) -> Response:
    """End a session and whatever it does; its memory is free, and its file gone, when this is answered."""
    if model.saved is None:
        await asyncio.wrap_future(model.sessions.delete(session_id))
    else:
        await off_loop(model.saved.delete, session_id)
    return JSONResponse({"success": True, "session_id": session_id})


@router.post("/{session_id}/append")
async def append(
    model: AcceptingSessions,
    session: AcceptingSession,
    body: Annotated[AppendRequest, Depends(json_body(AppendRequest))],
) -> Response:
    """Add text for good."""
    token_ids = await off_loop(prompt_ids, model, body.text, add_special=False)
    view = await asyncio.wrap_future(session.append(token_ids))
    return JSONResponse({"n_tokens_added": len(token_ids), "total_tokens": view.num_tokens, "pos_max": view.pos_max})


@router.post("/{session_id}/mark_prefix")
async def mark_prefix(session: AcceptingSession) -> Response:
    """Freeze what the session holds, once all of it is computed."""
    view = await asyncio.wrap_future(session.mark_prefix())
    return JSONResponse({"prefix_end": view.prefix_end, "message": f"the prefix has {view.prefix_end} tokens"})
