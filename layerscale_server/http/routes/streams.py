"""``/v1/sessions/{session_id}/stream`` and ``/stats``: data taken in, and what became of it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends
from starlette.responses import JSONResponse, Response

from layerscale_core.sessions import COALESCING_S, Session
from layerscale_server.http.dependencies import AcceptingSession, AcceptingSessions, NamedSession, json_body
from layerscale_server.http.prompts import off_loop
from layerscale_server.http.schemas.sessions import PushRequest
from layerscale_server.http.stream_entries import push_entries

router = APIRouter(prefix="/v1/sessions/{session_id}")


@router.post("/stream/push")
async def push(
    model: AcceptingSessions,
    session: AcceptingSession,
    body: Annotated[PushRequest, Depends(json_body(PushRequest))],
) -> Response:
    """Enqueue entries; answered at once."""
    ack = await push_entries(model.sessions, session, body.data)
    return JSONResponse(
        {
            "pushed": ack.num_pushed,
            "dropped": ack.num_dropped,
            "queue_size": ack.queue_size,
            "queue_capacity": ack.queue_capacity,
            "total_enqueued": ack.total_enqueued,
            "total_dropped": ack.total_dropped,
        }
    )


@router.get("/stream/status")
async def status(session: NamedSession) -> Response:
    """How far the stream is."""
    counts = session.ring.counts
    view = session.view  # after the counts: what they call processed is in it
    has_begun = counts.total_enqueued > 0
    batches = counts.batches_processed
    return JSONResponse(
        {
            "type": view.type,
            "streaming": {
                "initialized": has_begun,
                "running": has_begun,
                "error": counts.has_failed,
                "queue_size": counts.queue_size,
                "queue_capacity": session.ring.capacity,
                "window_size": view.window_size,
                "process_interval_us": round(COALESCING_S * 1e6),
            },
            "statistics": {
                "total_enqueued": counts.total_enqueued,
                "total_dropped": counts.total_dropped,
                "batches_processed": batches,
                "items_processed": counts.items_processed,
                "total_process_time_us": counts.process_time_us,
                "avg_process_time_us": counts.process_time_us / batches if batches else 0.0,
            },
            "data": {
                "initialized": view.data_version > 0,
                "data_count": view.data_count,
                "total_data_tokens": view.data_tokens,
                "pos_next": view.pos_next,
            },
        }
    )


@router.get("/stats")
async def stats(session: NamedSession) -> Response:
    """The statistics of the entries in the window."""
    return await off_loop(_stats, session)


def _stats(session: Session) -> Response:
    return JSONResponse({"type": session.stream_type.name, **session.statistics()})
