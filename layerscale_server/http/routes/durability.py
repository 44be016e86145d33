"""Sessions saved, restored and forked, one at a time."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Depends
from starlette.responses import JSONResponse, Response

from layerscale_server.http.dependencies import AcceptingSession, AcceptingSessions, Saved, json_body
from layerscale_server.http.prompts import off_loop
from layerscale_server.http.routes.sessions import opened
from layerscale_server.http.schemas.sessions import RestoreRequest

router = APIRouter(prefix="/v1/sessions")


@router.post("/restore")
async def restore(saved: Saved, body: Annotated[RestoreRequest, Depends(json_body(RestoreRequest))]) -> Response:
    """Open a saved session that is not open."""
    return opened(await off_loop(saved.restore, body.session_id))


@router.post("/{session_id}/save")
async def save(saved: Saved, session: AcceptingSession) -> Response:
    """Save a session as it is between two of its requests."""
    capture = await asyncio.wrap_future(saved.capture(session))
    num_bytes = await off_loop(saved.write, session, capture)
    return JSONResponse(
        {"session_id": session.session_id, "data_version": capture.session.data_version, "bytes": num_bytes}
    )


@router.post("/{session_id}/fork")
async def fork(model: AcceptingSessions, session_id: str) -> Response:
    """Make a session that goes on by itself from where another stands."""
    return opened(await asyncio.wrap_future(model.sessions.fork(session_id)))
