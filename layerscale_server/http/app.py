"""The HTTP application, made for one server."""

from __future__ import annotations

from fastapi import APIRouter, Depends, FastAPI

from layerscale_core.version import __version__
from layerscale_server.http.auth import require_key
from layerscale_server.http.errors import install_error_handlers
from layerscale_server.http.request_scope import RequestScope
from layerscale_server.http.routes import (
    chat,
    completions,
    durability,
    events,
    flash,
    generate,
    health,
    messages,
    models,
    responses,
    sessions,
    streams,
    tokenize,
)
from layerscale_server.state import ServerState

GUARDED = (
    models,
    chat,
    completions,
    messages,
    responses,
    tokenize,
    sessions,
    durability,
    generate,
    streams,
    flash,
    events,
)
"""The modules whose routes need the key where the tier says so."""


def create_app(server: ServerState) -> FastAPI:
    """Build the application. Health and metrics are open; every other route needs the key where the tier says so."""
    app = FastAPI(
        title="LayerScale", version=__version__, openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False
    )
    app.state.server = server
    app.add_middleware(RequestScope, metrics=server.metrics)
    install_error_handlers(app, [route for module in (health, *GUARDED) for route in module.router.routes])
    guarded = APIRouter(dependencies=[Depends(require_key)])
    for routes in GUARDED:
        guarded.include_router(routes.router)
    app.include_router(health.router)
    app.include_router(guarded)
    return app
