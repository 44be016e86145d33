"""What a step of decoding must read."""

from __future__ import annotations

from dataclasses import replace

from layerscale_core.models import AttentionSpec, LayerSpec, MlpSpec, ModelSpec, MoeSpec, RopeSpec
from layerscale_server.bench.step_bytes import step_bytes

ATTENTION = AttentionSpec(num_heads=4, num_kv_heads=2, head_dim=16, scale=0.25, rope=RopeSpec((1.0,) * 8))
LAYER = LayerSpec(ATTENTION, MlpSpec(128))
SPEC = ModelSpec("test", 100, 64, 4096, 1e-5, (LAYER, LAYER), tied_output=True, num_parameters=100_000)


def test_every_weight_once_and_each_sequence_its_keys_and_values() -> None:
    assert step_bytes(SPEC, 50_000, 256, batch_size=1, context_len=10) == 50_000 + 10 * 256
    assert step_bytes(SPEC, 50_000, 256, batch_size=8, context_len=10) == 50_000 + 8 * 10 * 256


def test_a_layer_with_a_window_reads_no_more_than_that() -> None:
    windowed = replace(SPEC, layers=(LAYER, replace(LAYER, attention=replace(ATTENTION, window=100))))
    assert step_bytes(windowed, 0, 256, 1, 1000) == (1000 + 100) * 128
    assert step_bytes(windowed, 0, 256, 1, 50) == 50 * 256


def test_an_embedding_that_is_not_the_head_is_not_read() -> None:
    untied = replace(SPEC, tied_output=False)
    assert step_bytes(untied, 200_000, 256, 1, 0) == 200_000 - 2 * 100 * 64


def test_what_a_mixture_reads_is_not_known() -> None:
    mixture = replace(LAYER, mlp=MoeSpec(8, 2, MlpSpec(128), is_normalized=True))
    assert step_bytes(replace(SPEC, layers=(LAYER, mixture)), 50_000, 256, 1, 10) is None
