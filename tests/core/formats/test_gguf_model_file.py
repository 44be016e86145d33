"""An opened GGUF file: names, weights, memory, closing."""

from __future__ import annotations

import gc
import sys
import tracemalloc
from pathlib import Path

import gguf
import numpy as np
import psutil
import pytest

from layerscale_core.formats import GgufFormat, open_model
from layerscale_core.formats.gguf.ggml_types import GGML_TYPES
from layerscale_core.models.spec import weight_shapes
from layerscale_core.specs.model_format import ModelFile, WeightSource
from tests.support.tiny_gguf import CHATML_TEMPLATE, write_tiny_llama

ENCODINGS = [ggml_type.name for ggml_type in GGML_TYPES.values()]


@pytest.fixture
def tiny(tiny_model_path: Path) -> ModelFile:
    return open_model(tiny_model_path, [GgufFormat()])


def test_is_named_after_its_file(tmp_path: Path) -> None:
    path = write_tiny_llama(tmp_path / "Tiny-0.1M.Q4_0.gguf", layers=1, encoding="Q4_0")
    model = open_model(path, [GgufFormat()])
    assert model.name == "Tiny-0.1M.Q4_0"
    assert model.size_bytes == path.stat().st_size


def test_has_the_chat_template_of_the_file(tiny: ModelFile, tmp_path: Path) -> None:
    assert tiny.chat_template == CHATML_TEMPLATE
    bare = write_tiny_llama(tmp_path / "bare.gguf", layers=1, chat_template=None)
    assert open_model(bare, [GgufFormat()]).chat_template is None


def test_offers_every_weight_of_the_model_in_its_shape(tiny: ModelFile) -> None:
    expected = weight_shapes(tiny.spec)
    assert {name: tiny.weights.shape(name) for name in tiny.weights.names()} == expected
    for name, shape in expected.items():
        assert tiny.weights.stored_bytes(name) == 4 * np.prod(shape)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_weights_are_those_of_the_file(encoding: str, tmp_path: Path) -> None:
    path = write_tiny_llama(
        tmp_path / "tiny.gguf", layers=1, hidden=256, intermediate=512, encoding=encoding, tied=False
    )
    theirs = {
        tensor.name: gguf.quants.dequantize(tensor.data, tensor.tensor_type) for tensor in gguf.GGUFReader(path).tensors
    }
    weights = open_model(path, [GgufFormat()]).weights
    for name, tensor_name in {
        "embedding": "token_embd.weight",
        "output": "output.weight",
        "layers.0.query": "blk.0.attn_q.weight",
        "layers.0.key": "blk.0.attn_k.weight",
        "layers.0.value": "blk.0.attn_v.weight",
        "layers.0.attention_output": "blk.0.attn_output.weight",
        "layers.0.gate": "blk.0.ffn_gate.weight",
        "layers.0.up": "blk.0.ffn_up.weight",
        "layers.0.down": "blk.0.ffn_down.weight",
    }.items():
        np.testing.assert_array_equal(weights.matrix(name).dequantize(), theirs[tensor_name])
    for name, tensor_name in {
        "output_norm": "output_norm.weight",
        "layers.0.attention_norm": "blk.0.attn_norm.weight",
        "layers.0.mlp_norm": "blk.0.ffn_norm.weight",
    }.items():
        np.testing.assert_array_equal(weights.vector(name), theirs[tensor_name])


@pytest.fixture(scope="module", params=ENCODINGS)
def weights(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> WeightSource:
    """The weights of a small model in each encoding."""
    path = tmp_path_factory.mktemp("encodings") / f"{request.param}.gguf"
    write_tiny_llama(path, layers=1, hidden=256, intermediate=256, encoding=request.param)
    return open_model(path, [GgufFormat()]).weights


@pytest.mark.parametrize(("start", "stop"), [(0, None), (0, 1), (5, 9), (255, 256), (17, None), (4, 4), (256, None)])
def test_a_slice_of_rows_is_that_part_of_the_whole(weights: WeightSource, start: int, stop: int | None) -> None:
    whole = weights.matrix("layers.0.up").dequantize()
    part = weights.matrix("layers.0.up", start, stop)
    assert part.shape == whole[start:stop].shape
    np.testing.assert_array_equal(part.dequantize(), whole[start:stop])


def test_an_unknown_weight_is_a_key_error(tiny: ModelFile) -> None:
    for read in (tiny.weights.shape, tiny.weights.stored_bytes, tiny.weights.matrix, tiny.weights.vector):
        with pytest.raises(KeyError):
            read("layers.0.query.bias")


def test_weights_outlive_the_file(tiny_model_path: Path) -> None:
    model = open_model(tiny_model_path, [GgufFormat()])
    matrix = model.weights.matrix("embedding")
    before = matrix.dequantize().copy()
    model.close()
    model.close()
    np.testing.assert_array_equal(matrix.dequantize(), before)


def test_weights_are_the_callers_to_change(tiny: ModelFile) -> None:
    first = tiny.weights.vector("output_norm")
    before = first.copy()
    first[:] = 0
    np.testing.assert_array_equal(tiny.weights.vector("output_norm"), before)


@pytest.mark.skipif(sys.platform != "linux", reason="reads the memory map of the process from /proc")
def test_pages_that_were_read_can_be_forgotten_and_the_file_unmapped(tmp_path: Path) -> None:
    path = write_tiny_llama(tmp_path / "forget.gguf")
    model = open_model(path, [GgufFormat()])
    before = model.weights.matrix("embedding").dequantize()
    assert resident_bytes(path) > 0
    model.weights.drop_cache()
    assert resident_bytes(path) == 0
    np.testing.assert_array_equal(model.weights.matrix("embedding").dequantize(), before)
    model.close()
    assert resident_bytes(path) is None


def resident_bytes(path: Path) -> int | None:
    """Bytes of a mapped file that count as this process's; None when it is not mapped."""
    mapped = [item.rss for item in psutil.Process().memory_maps() if item.path == str(path)]
    return sum(mapped) if mapped else None


@pytest.mark.model
def test_reads_the_real_model(real_model_path: Path) -> None:
    model = open_model(real_model_path, [GgufFormat()])
    spec = model.spec
    assert (spec.num_parameters, spec.max_context_len, spec.vocab_size) == (134_515_008, 8_192, 49_152)
    assert model.weights.shape("layers.29.down") == (576, 1536)
    assert sum(map(model.weights.stored_bytes, model.weights.names())) < model.size_bytes
    assert model.chat_template is not None


@pytest.mark.model
def test_keeps_little_of_a_vocabulary_beside_the_tokenizer(real_model_path: Path) -> None:
    open_model(real_model_path, [GgufFormat()]).make_tokenizer()  # imports
    tracemalloc.start()
    try:
        model = open_model(real_model_path, [GgufFormat()])
        tokenizer = model.make_tokenizer()
        gc.collect()
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert model.make_tokenizer() is tokenizer
    assert kept < 40 * tokenizer.vocab_size
