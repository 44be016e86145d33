"""What a key or a value is after it was stored, at each precision."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layerscale_core.reference.hadamard import rotate, rotate_back
from layerscale_core.reference.kv_codecs import key_codec, value_codec
from layerscale_core.specs import KVType

HEAD_DIMS = [1, 16, 20, 64, 96, 128]
QUANTISED = [KVType.INT8, KVType.INT4]


def vectors(head_dim: int, seed: int = 0, num: int = 50) -> np.ndarray:
    """Vectors of very different lengths, each with an element that outweighs all others."""
    generator = np.random.default_rng(seed)
    x = generator.normal(0, 1, (num, head_dim)) * generator.lognormal(0, 2, (num, 1))
    x[:, head_dim // 3] *= 12
    return x.astype(np.float32)


@pytest.mark.parametrize("head_dim", HEAD_DIMS)
def test_rotation_keeps_products_and_has_an_inverse(head_dim: int) -> None:
    x, y = vectors(head_dim), vectors(head_dim, seed=1)
    lengths = np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1)
    assert np.abs((rotate(x) * rotate(y)).sum(1) - (x * y).sum(1)).max() < 1e-5 * lengths.max()
    np.testing.assert_allclose(rotate_back(rotate(x)), x, atol=1e-5 * np.abs(x).max())


def test_rotation_spreads_an_outlier() -> None:
    outlier = np.zeros((1, 64), np.float32)
    outlier[0, 17] = 8
    np.testing.assert_allclose(np.abs(rotate(outlier)), 1, rtol=1e-6)


@pytest.mark.parametrize("kv_type", KVType)
@pytest.mark.parametrize("head_dim", HEAD_DIMS)
def test_key_and_value_take_the_planned_bytes(kv_type: KVType, head_dim: int) -> None:
    key, value = key_codec(kv_type, head_dim), value_codec(kv_type, head_dim)
    assert key.num_bytes + value.num_bytes == kv_type.bytes_per_head(head_dim)
    x = vectors(head_dim)
    assert key.encode(x).shape == (50, key.num_bytes)
    assert value.encode(x).shape == (50, value.num_bytes)


@pytest.mark.parametrize("kv_type", QUANTISED)
@pytest.mark.parametrize("head_dim", HEAD_DIMS)
def test_no_element_of_the_rotated_vector_is_off_by_more_than_half_a_step(kv_type: KVType, head_dim: int) -> None:
    x = vectors(head_dim)
    for codec in (key_codec(kv_type, head_dim), value_codec(kv_type, head_dim)):
        rotated, stored = rotate(x), rotate(codec.decode(codec.encode(x)))
        reach = np.abs(rotated).max(axis=1, keepdims=True)
        step = reach / 127 if kv_type is KVType.INT8 else 2 * reach / 15
        assert (np.abs(stored - rotated) <= 0.51 * step + 1e-3 * reach).all()


@pytest.mark.parametrize("kv_type", KVType)
@settings(deadline=None, max_examples=30)
@given(data=st.data())
def test_a_vector_is_stored_the_same_alone_and_among_others(kv_type: KVType, data: st.DataObject) -> None:
    head_dim = data.draw(st.sampled_from(HEAD_DIMS))
    x = vectors(head_dim, seed=data.draw(st.integers(0, 1000)))
    row = data.draw(st.integers(0, len(x) - 1))
    for codec in (key_codec(kv_type, head_dim), value_codec(kv_type, head_dim)):
        np.testing.assert_array_equal(codec.encode(x)[row], codec.encode(x[row]))
        np.testing.assert_array_equal(codec.decode(codec.encode(x))[row], codec.decode(codec.encode(x[row])))


@pytest.mark.parametrize("kv_type", KVType)
def test_zeros_stay_zeros(kv_type: KVType) -> None:
    codec = key_codec(kv_type, 64)
    assert not codec.decode(codec.encode(np.zeros((2, 64), np.float32))).any()


@pytest.mark.parametrize("kv_type", KVType)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_stays_so(kv_type: KVType, value: float) -> None:
    x = np.ones((1, 64), np.float32)
    x[0, 3] = value
    codec = value_codec(kv_type, 64)
    with np.errstate(all="ignore"):
        assert not np.isfinite(codec.decode(codec.encode(x))).all()
