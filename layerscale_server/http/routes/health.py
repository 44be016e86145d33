"""Health and metrics: always open."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from layerscale_server.http.dependencies import Server
from layerscale_server.metrics import CONTENT_TYPE

router = APIRouter()


@router.get("/health")
@router.get("/v1/health")
async def health(server: Server) -> Response:
    """200 while new work is taken and makes progress, else 503; the body is empty."""
    return Response(status_code=200 if server.is_ready() else 503)


@router.get("/metrics")
async def metrics(server: Server) -> Response:
    """Prometheus text."""
    return Response(server.metrics.exposition(), media_type=None, headers={"content-type": CONTENT_TYPE})
