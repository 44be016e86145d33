"""How many programs share a context: as many as fill the device, known before any length is."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("triton", reason="Triton is made for Linux on x86-64")

from layerscale_core.gpu.attention import programs_sharing, tokens_per_tile
from layerscale_core.gpu.graphs import MAX_PAGES, DecodeBuffers
from layerscale_core.gpu.kv_cache import KVCache, Pages
from layerscale_core.gpu.step import make_tiles
from layerscale_core.gpu.triton_memory import NUM_COUNTERS, NUM_PARTIALS
from layerscale_core.gpu.tuning import PORTABLE
from layerscale_core.gpu.vendor import GRAPH_BUCKETS
from layerscale_core.gpu.warm_up import step_batch
from layerscale_core.gpu.workspace import Workspace, allocate_workspace
from layerscale_core.models import AttentionSpec, RopeSpec
from layerscale_core.specs import KVLayout

CPU = torch.device("cpu")
WORKSPACE = Workspace(torch.empty(NUM_PARTIALS, device="meta"), torch.empty(NUM_COUNTERS, device="meta"))


def spec(num_heads: int = 32, num_kv_heads: int = 8) -> AttentionSpec:
    return AttentionSpec(num_heads, num_kv_heads, 128, 128**-0.5, RopeSpec(()))


def cache(page_size: int = 16) -> KVCache:
    nothing = Pages(torch.empty(0), None, None)
    return KVCache(KVLayout(4096, page_size, 1, 8, 128), nothing, nothing, None)


@pytest.mark.parametrize("page_size", [16, 32])
@pytest.mark.parametrize("heads", [(32, 8), (32, 32), (64, 8)])
@pytest.mark.parametrize("bucket", GRAPH_BUCKETS)
def test_every_recorded_step_fills_the_device(bucket: int, heads: tuple[int, int], page_size: int) -> None:
    tiles = DecodeBuffers(GRAPH_BUCKETS[-1], MAX_PAGES, CPU).tensors(bucket).tiles
    shared = programs_sharing(tiles, cache(page_size), spec(*heads), WORKSPACE, PORTABLE)
    assert shared * bucket * heads[1] >= PORTABLE.sharing * PORTABLE.target_programs


@pytest.mark.parametrize(
    ("num_new", "cached", "is_shared"), [(20, 19_000, True), (512, 19_000, False), (512, 0, False), (1, 0, True)]
)
def test_prompts_share_contexts_until_they_fill_the_device(num_new: int, cached: int, is_shared: bool) -> None:
    tile_tokens = tokens_per_tile(spec(), num_new, PORTABLE)
    tiles = make_tiles(step_batch(cache().layout, 1, cached, num_new), CPU, tile_tokens)
    assert (programs_sharing(tiles, cache(), spec(), WORKSPACE, PORTABLE) > 1) == (is_shared and cached > 0)


def test_without_room_a_program_is_alone() -> None:
    tiles = make_tiles(step_batch(cache().layout, 2, 5000, 1), CPU, 1)
    assert programs_sharing(tiles, cache(), spec(), allocate_workspace(CPU, 1000, 16), PORTABLE) == 1
