"""``/v1/sessions/{session_id}/flash``: questions answered ahead."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Depends
from starlette.responses import JSONResponse, Response

from layerscale_core.errors import NotFoundError
from layerscale_core.sessions import FlashQuery
from layerscale_server.http.dependencies import AcceptingSession, AcceptingSessions, NamedSession, json_body
from layerscale_server.http.prompts import off_loop, prompt_ids
from layerscale_server.http.schemas.sessions import FlashRequest

router = APIRouter(prefix="/v1/sessions/{session_id}/flash")


@router.post("")
async def register(
    model: AcceptingSessions,
    session: AcceptingSession,
    body: Annotated[FlashRequest, Depends(json_body(FlashRequest))],
) -> Response:
    """Have a question answered after every batch of data."""
    token_ids = await off_loop(prompt_ids, model, body.query, add_special=False)
    query = await asyncio.wrap_future(session.register_flash(body.query, body.max_tokens, tuple(token_ids)))
    return JSONResponse(_registration(query) | {"total_flash_queries": len(session.flash.queries)})


@router.get("")
async def list_queries(session: NamedSession) -> Response:
    """Every question, in order of registration, with its newest answer."""
    queries = session.flash.queries
    return JSONResponse(
        {
            "flash_queries": [_registration(query) | _answer(query) for query in queries],
            "count": len(queries),
            "current_data_version": session.view.data_version,
        }
    )


@router.delete("/{flash_id}")
async def remove(session: NamedSession, flash_id: str) -> Response:
    """Forget a question."""
    query = next((each for each in session.flash.queries if str(each.id) == flash_id), None)
    if query is None:
        raise NotFoundError("there is no such flash query", code="flash_query_not_found")
    remaining = await asyncio.wrap_future(session.remove_flash(query.id))
    return JSONResponse({"success": True, "remaining": remaining})


def _registration(query: FlashQuery) -> dict[str, Any]:
    return {
        "id": query.id,
        "query": query.query,
        "max_tokens": query.max_tokens,
        "n_tokens": len(query.token_ids),
    }


def _answer(query: FlashQuery) -> dict[str, Any]:
    answer = query.answer
    if answer is None:
        return {"has_answer": False, "value": "", "data_version": 0, "confidence": 0.0, "evaluated_at": 0}
    return {
        "has_answer": True,
        "value": answer.value,
        "data_version": answer.data_version,
        "confidence": answer.confidence,
        "evaluated_at": answer.evaluated_at,
    }
