"""The cache on a device, against the reference's codecs."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from layerscale_core.conformance.executors import reference_kernels
from layerscale_core.gpu.kv_cache import (
    KVCache,
    allocate_cache,
    copy_pages,
    read_pages,
    rotate_heads,
    shift_positions,
    store,
    write_pages,
)
from layerscale_core.gpu.rope import device_rope
from layerscale_core.models import RopeSpec
from layerscale_core.reference.hadamard import rotate
from layerscale_core.reference.kv_codecs import key_codec, value_codec
from layerscale_core.specs import KVLayout, KVType
from tests.support.gpu_layers import LAYER, cache_bytes, tensor

QUANTISED = [KVType.INT8, KVType.INT4]
WIDTHS = [20, 64, 80, 256]


def layout_of(kv_type: KVType, head_dim: int, num_kv_heads: int = 2) -> KVLayout:
    return KVLayout(6, 8, 2, num_kv_heads, head_dim, kv_type=kv_type)


def filled(layout: KVLayout) -> tuple[KVCache, np.ndarray, np.ndarray, np.ndarray]:
    """A cache with some keys and values in its second layer, these, and their slots."""
    random = np.random.default_rng(3)
    cache, slots = allocate_cache(layout, "cpu"), random.permutation(48)[:19]
    shape = (19, layout.num_kv_heads * layout.head_dim)
    key, value = (random.standard_normal(shape).astype(np.float32) for _ in range(2))
    store(tensor(key), tensor(value), cache, LAYER, tensor(slots))
    return cache, key, value, slots


@pytest.mark.parametrize("head_dim", WIDTHS)
@pytest.mark.parametrize("kv_type", KVType)
def test_codes_scales_and_minima_are_those_of_the_reference(kv_type: KVType, head_dim: int) -> None:
    layout = layout_of(kv_type, head_dim)
    cache, key, value, slots = filled(layout)
    codecs = (key_codec(kv_type, head_dim), value_codec(kv_type, head_dim))
    for stored, vectors, codec in zip(cache_bytes(cache, LAYER), (key, value), codecs, strict=True):
        # The device sums the rotation in another order, so that a code may be its neighbour.
        assert (stored[slots] != codec.encode(vectors.reshape(19, 2, head_dim))).mean() <= 0.002
        assert not np.delete(stored, slots, axis=0).any()
    assert sum(part.numel() * part.element_size() for part in cache.parts) == layout.total_bytes


@pytest.mark.filterwarnings("ignore:All-NaN slice")
@pytest.mark.parametrize("kv_type", QUANTISED)
def test_what_is_not_finite_does_not_pass_for_a_number(kv_type: KVType) -> None:
    cache = allocate_cache(layout_of(kv_type, 64, 1), "cpu")
    key, value = torch.ones(2, 64), torch.ones(2, 64)
    key[0, 5], value[1, 9] = torch.nan, torch.inf
    with np.errstate(all="ignore"):
        store(key, value, cache, LAYER, torch.tensor([0, 9]))
    assert not cache.keys.scales[LAYER, 0, 0, 0].isfinite().any()
    assert not cache.values.scales[LAYER, 1, 0, 1].isfinite().any()
    assert cache.keys.scales[LAYER, 1, 0, 1].isfinite().all()


@pytest.mark.parametrize("head_dim", [20, 128])
def test_queries_are_rotated_as_keys_are(head_dim: int) -> None:
    cache = allocate_cache(layout_of(KVType.INT8, head_dim), "cpu")
    query = torch.randn(3, 5 * head_dim, generator=torch.Generator().manual_seed(1))
    expected = rotate(query.reshape(3, 5, head_dim).numpy()).reshape(3, -1)
    np.testing.assert_allclose(rotate_heads(query, cache, query).numpy(), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("kv_type", "head_dim", "rotary_dim", "interleaved"),
    [
        (KVType.FP16, 64, 64, False),
        (KVType.INT8, 80, 40, True),
        (KVType.INT4, 64, 64, True),
        (KVType.INT4, 20, 6, False),
    ],
)
def test_shifted_keys_are_those_of_the_reference(
    kv_type: KVType, head_dim: int, rotary_dim: int, interleaved: bool
) -> None:
    layout = layout_of(kv_type, head_dim)
    cache = filled(layout)[0]
    kernels = reference_kernels()
    truth = kernels.allocate_kv(layout)
    truth.keys[LAYER, :], truth.values[LAYER, :] = cache_bytes(cache, LAYER)
    rope = RopeSpec(tuple(10_000.0 ** (-2 * pair / rotary_dim) for pair in range(rotary_dim // 2)), 1.3, interleaved)
    page_ids = np.array([4, 1], np.int32)
    for delta in (100_003, -9):
        shift_positions(cache, LAYER, tensor(page_ids), delta, device_rope(rope, "cpu"))
        kernels.shift_positions(truth, LAYER, page_ids, delta, rope)
    keys, values = cache_bytes(cache, LAYER)
    decoded, expected = truth.key_codec.decode(keys), truth.key_codec.decode(truth.keys[LAYER])
    # A code that lay between two may be either; nearly all are the same.
    assert (np.abs(decoded - expected).max(axis=-1) > 1e-2).mean() <= 0.02
    np.testing.assert_array_equal(values, truth.values[LAYER])


@pytest.mark.parametrize("kv_type", KVType)
def test_pages_are_copied_and_travel_as_bytes(kv_type: KVType) -> None:
    layout = layout_of(kv_type, 64)
    cache = filled(layout)[0]
    content = read_pages(cache, torch.tensor([0, 5, 2]))
    assert content.shape == (3, layout.page_size * layout.bytes_per_token)
    copy_pages(cache, torch.tensor([0, 5]), torch.tensor([3, 1]))
    assert torch.equal(read_pages(cache, torch.tensor([3, 1])), content[:2])
    other = allocate_cache(layout, "cpu")
    write_pages(other, torch.tensor([1, 2, 3]), content)
    assert torch.equal(read_pages(other, torch.tensor([1, 2, 3])), content)
