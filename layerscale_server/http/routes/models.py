"""``/v1/models``: the loaded model and the server around it."""

from __future__ import annotations

import platform
from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter
from starlette.responses import JSONResponse, Response

from layerscale_core.errors import NotFoundError
from layerscale_core.version import __version__
from layerscale_server.http.dependencies import Server
from layerscale_server.state import LoadedModel, ServerState

router = APIRouter()

_MIB = 1 << 20
_BUILD = f"{platform.system()}-{platform.machine()}-python{platform.python_version()}".lower()


@router.get("/v1/models")
async def list_models(server: Server) -> Response:
    """The loaded model; none while it is loading."""
    data = [] if server.model is None else [_entry(server.model)]
    model_id = None if server.model is None else server.model.model_id
    body = {"object": "list", "data": data, "has_more": False, "first_id": model_id, "last_id": model_id}
    return JSONResponse(body | {"server": _server_block(server)})


@router.get("/v1/models/{model_id:path}")
async def retrieve_model(model_id: str, server: Server) -> Response:
    """The loaded model, by its id."""
    if server.model is None or server.model.model_id != model_id:
        raise NotFoundError("there is no such model", code="model_not_found")
    return JSONResponse(_entry(server.model))


def _entry(model: LoadedModel) -> dict[str, Any]:
    """The model as clients of OpenAI's and of Anthropic's API know one."""
    return {
        "id": model.model_id,
        "object": "model",
        "created": model.created,
        "owned_by": "layerscale",
        "max_model_len": model.plan.context_len,
        "type": "model",
        "display_name": model.model_id,
        "created_at": datetime.fromtimestamp(model.created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }


def _server_block(server: ServerState) -> dict[str, Any]:
    model = server.model
    return {
        "version": __version__,
        "build": _BUILD,
        "licensed": server.is_licensed(),
        "accelerators": [] if model is None else _accelerators(model),
        "model": None if model is None else _description(model),
        "scheduler": None if model is None else _scheduler(model),
    }


def _accelerators(model: LoadedModel) -> list[dict[str, Any]]:
    return [
        {
            "name": device.name,
            "description": device.description,
            "vram_mb": device.total_memory_bytes // _MIB,
            "free_mb": device.free_memory_bytes // _MIB,
        }
        for device in model.devices
        if device.is_accelerator
    ]


def _description(model: LoadedModel) -> dict[str, Any]:
    attention = model.spec.layers[0].attention
    return {
        "id": model.model_id,
        "size_bytes": model.size_bytes,
        "params": model.spec.num_parameters,
        "layers": len(model.spec.layers),
        "hidden_size": model.spec.hidden_size,
        "attention_heads": attention.num_heads,
        "kv_heads": attention.num_kv_heads,
        "trained_context": model.spec.max_context_len,
        "kv_cache_type": model.plan.layout.kv_type.value,
    }


def _scheduler(model: LoadedModel) -> dict[str, int]:
    plan = model.plan
    return {
        "max_concurrent": plan.burst_slots,
        "max_sessions": plan.request.num_sessions,
        "max_sequences": plan.burst_slots + plan.request.num_sessions,
        "batch_tokens": model.max_tokens_per_step,
        "context": plan.context_len,
        "prefix_slots": 0,
        "chunk_size": model.max_tokens_per_step,
    }
