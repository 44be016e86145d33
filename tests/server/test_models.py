"""``/v1/models``."""

from __future__ import annotations

from layerscale_core.specs import PRO_TIER, DeviceInfo
from layerscale_core.version import __version__
from tests.server.conftest import MODEL_ID, PRO_KEY, FakeServer, MakeServer


def test_lists_the_loaded_model_and_the_server(server: FakeServer) -> None:
    body = server.get("/v1/models").json()
    block = body.pop("server")
    (entry,) = body["data"]
    assert body == {"object": "list", "data": [entry], "has_more": False, "first_id": MODEL_ID, "last_id": MODEL_ID}
    assert entry == {
        "id": MODEL_ID,
        "object": "model",
        "created": 1_750_000_000,
        "owned_by": "layerscale",
        "max_model_len": 256,
        "type": "model",
        "display_name": MODEL_ID,
        "created_at": "2025-06-15T15:06:40Z",
    }
    assert block.pop("build")
    assert block == {
        "version": __version__,
        "licensed": False,
        "accelerators": [],
        "model": {
            "id": MODEL_ID,
            "size_bytes": 5678,
            "params": 1234,
            "layers": 2,
            "hidden_size": 32,
            "attention_heads": 4,
            "kv_heads": 2,
            "trained_context": 256,
            "kv_cache_type": "fp16",
        },
        "scheduler": {
            "max_concurrent": 2,
            "max_sessions": 0,
            "max_sequences": 2,
            "batch_tokens": 512,
            "context": 256,
            "prefix_slots": 0,
            "chunk_size": 512,
        },
    }


def test_retrieves_the_model_by_its_id_with_raw_or_escaped_slash(server: FakeServer) -> None:
    entry = server.get("/v1/models").json()["data"][0]
    assert server.get("/v1/models/acme/tiny").json() == entry
    assert server.get("/v1/models/acme%2Ftiny").json() == entry
    missing = server.get("/v1/models/other")
    assert missing.status_code == 404
    assert missing.json()["error"]["type"] == "not_found_error"


def test_shows_accelerators_and_the_tier(make_server: MakeServer) -> None:
    devices = (
        DeviceInfo("gpu0", "a GPU", total_memory_bytes=8 << 30, free_memory_bytes=3 << 30, is_accelerator=True),
        DeviceInfo("cpu", "a CPU", total_memory_bytes=8 << 30, free_memory_bytes=3 << 30, is_accelerator=False),
    )
    server = make_server(tier=PRO_TIER, license_key=PRO_KEY, devices=devices)
    block = server.get("/v1/models", headers={"x-api-key": PRO_KEY}).json()["server"]
    assert block["licensed"] is True
    assert block["accelerators"] == [{"name": "gpu0", "description": "a GPU", "vram_mb": 8192, "free_mb": 3072}]
    assert block["scheduler"]["max_concurrent"] == 32
