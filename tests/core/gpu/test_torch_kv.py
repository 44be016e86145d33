"""The cache in plain torch holds what the reference's codecs write, and gives it back."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from layerscale_core.gpu.torch_kv import codec
from layerscale_core.reference.kv_codecs import key_codec
from layerscale_core.specs import KVType


@pytest.mark.parametrize("kv_type", KVType)
@pytest.mark.parametrize("head_dim", [16, 20, 64, 96, 128])
def test_bytes_are_the_references(kv_type: KVType, head_dim: int) -> None:
    generator = np.random.default_rng(0)
    vectors = generator.normal(0, 1, (7, 3, head_dim)) * generator.lognormal(0, 2, (7, 3, 1))
    x = vectors.astype(np.float32)
    reference, ours = key_codec(kv_type, head_dim), codec(kv_type, head_dim, kv_type.num_key_groups(head_dim))
    content = reference.encode(x)
    np.testing.assert_array_equal(ours.encode(torch.from_numpy(x)).numpy(), content)
    decoded = ours.decode(torch.from_numpy(content)).numpy()
    np.testing.assert_allclose(decoded, reference.decode(content), atol=1e-6 * np.abs(x).max())


@pytest.mark.parametrize("kv_type", [KVType.INT8, KVType.INT4])
def test_what_is_not_finite_does_not_come_back_as_a_number(kv_type: KVType) -> None:
    vectors = torch.zeros(1, 64)
    vectors[0, 5] = torch.inf
    ours = codec(kv_type, 64, kv_type.num_key_groups(64))
    assert not ours.decode(ours.encode(vectors)).isfinite().all()
