"""A model quantised as it is read: which weights, in which layout and memory, and that it is still the model."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from layerscale_backend_cpu.native_executor import native_isa
from layerscale_core.conformance.executors import kv_layout, logits_in_chunks, random_tokens
from layerscale_core.conformance.random_model import RandomWeights, tiny_spec
from layerscale_core.errors import UnsupportedModelError
from layerscale_core.forward import make_executor
from layerscale_core.models import DenseMatrix, QuantizedMatrix
from layerscale_core.models.quantize import Quantization
from layerscale_core.plugins import PluginRegistry
from layerscale_core.quantized_model import QuantizedWeights, WeightsOver
from layerscale_core.specs import ModelFile, StepLimits
from tests.support.exact_cpu import exact_cpu
from tests.support.tiny_folder import write_tiny_folder
from tests.support.tiny_gguf import write_tiny_llama

QUANTIZATIONS = (Quantization.INT8, Quantization.INT4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_folder(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(params=QUANTIZATIONS)
def quantization(request: pytest.FixtureRequest) -> Quantization:
    chosen: Quantization = request.param
    return chosen


@pytest.fixture
def file(folder: Path, quantization: Quantization) -> Iterator[ModelFile]:
    file = PluginRegistry.discover().open_model(folder, quantization=quantization)
    yield file
    file.close()


def layout_of(weights: QuantizedWeights, name: str) -> tuple[int, bool] | None:
    """Bits, and whether there are minima; None for floats."""
    matrix = weights.matrix(name, 0, 0)
    return (matrix.bits, matrix.mins is not None) if isinstance(matrix, QuantizedMatrix) else None


def test_bits_are_those_that_a_weight_needs() -> None:
    spec = tiny_spec(tied_output=False)
    layouts = {
        quantization: {
            name.removeprefix("layers.0."): layout_of(QuantizedWeights(RandomWeights(spec, "bf16"), quantization), name)
            for name in RandomWeights(spec, "bf16").names()
            if not name.endswith("norm") and "layers.1" not in name
        }
        for quantization in QUANTIZATIONS
    }
    assert set(layouts[Quantization.INT8].values()) == {(8, False)}
    assert layouts[Quantization.INT4] == {
        "embedding": (8, False),
        "output": (8, False),
        "query": (4, True),
        "key": (6, False),
        "value": (6, False),
        "attention_output": (4, True),
        "gate": (4, True),
        "up": (4, True),
        "down": (6, False),
    }


def test_what_is_not_quantised_stays_as_it_is(quantization: Quantization) -> None:
    experts = RandomWeights(tiny_spec(num_experts=4), "f32")
    odd = RandomWeights(tiny_spec(intermediate_size=80), "f16")
    codes = RandomWeights(tiny_spec(), "6-bit, groups of 16")
    for weights, name in ((experts, "layers.0.router"), (odd, "layers.0.down"), (codes, "layers.0.gate")):
        assert isinstance(QuantizedWeights(weights, quantization).matrix("embedding"), QuantizedMatrix)
        ours, theirs = QuantizedWeights(weights, quantization).matrix(name), weights.matrix(name)
        assert type(ours) is type(theirs)
        np.testing.assert_array_equal(ours.dequantize(), theirs.dequantize())


def test_any_rows_are_those_of_the_whole(file: ModelFile) -> None:
    for name in ("embedding", "layers.1.gate"):
        whole = file.weights.matrix(name).dequantize()
        for start, stop in ((0, 1), (3, 3), (5, 70), (90, None)):
            rows = file.weights.matrix(name, start, stop).dequantize()
            np.testing.assert_array_equal(rows, whole[start:stop])


def test_it_is_the_same_model_with_other_weights(file: ModelFile, folder: Path) -> None:
    original = PluginRegistry.discover().open_model(folder)
    assert (file.name, file.spec, file.size_bytes) == (original.name, original.spec, original.size_bytes)
    assert file.chat_template == original.chat_template
    assert file.make_tokenizer().encode("Hello") == original.make_tokenizer().encode("Hello")
    assert file.fingerprint != original.fingerprint
    for name in file.weights.names():
        assert file.weights.stored_bytes(name) == original.weights.stored_bytes(name)
    original.close()


def test_none_opens_the_file_as_it_is(folder: Path) -> None:
    file = PluginRegistry.discover().open_model(folder, quantization=Quantization.NONE)
    assert isinstance(file.weights.matrix("embedding", 0, 0), DenseMatrix)
    file.close()


@pytest.mark.parametrize("encoding", ["F16", "Q4_1"])
def test_a_gguf_file_is_quantised_where_it_holds_floats_and_refused_where_it_does_not(
    tmp_path: Path, quantization: Quantization, encoding: str
) -> None:
    path = write_tiny_llama(tmp_path / "tiny.gguf", encoding=encoding)
    registry = PluginRegistry.discover()
    if encoding == "F16":
        file = registry.open_model(path, quantization=quantization)
        assert isinstance(file.weights.matrix("embedding", 0, 0), QuantizedMatrix)
        file.close()
    else:
        with pytest.raises(UnsupportedModelError, match=f"--quantization {quantization}: no weights of tiny are in"):
            registry.open_model(path, quantization=quantization)


@pytest.mark.skipif(native_isa() is None, reason="numpy holds every weight in float32")
def test_the_plan_counts_the_bytes_that_result(file: ModelFile) -> None:
    device = exact_cpu(num_threads=1)
    needs = device.memory_needs(file.spec, file.weights, StepLimits(16, 16, 64))
    kv = kv_layout(file.spec, page_size=16)
    executor = make_executor(device, file.spec, file.weights, kv)
    matrices = sum(size for name, size in needs.weights.items() if len(file.weights.shape(name)) == 2)
    assert device.allocator.stats().used_bytes == matrices + kv.total_bytes
    executor.close()


def test_the_executor_computes_what_the_dequantised_weights_say(file: ModelFile, quantization: Quantization) -> None:
    kv = kv_layout(file.spec, page_size=16)
    prompt = random_tokens(file.spec, 40)
    logits = []
    for weights in (file.weights, Dequantized(file.weights)):
        executor = make_executor(exact_cpu(num_threads=1), file.spec, weights, kv)
        logits.append(logits_in_chunks(executor, kv, [prompt]).copy())
        executor.close()
    np.testing.assert_allclose(logits[0], logits[1], atol=2e-2)
    np.testing.assert_array_equal(logits[0].argmax(axis=-1), logits[1].argmax(axis=-1))


def test_the_floats_of_a_large_matrix_are_never_all_in_memory() -> None:
    spec = tiny_spec(vocab_size=40_000, hidden_size=256)
    weights = QuantizedWeights(_Large(spec), Quantization.INT8)
    tracemalloc.start()
    matrix = weights.matrix("embedding")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert isinstance(matrix, QuantizedMatrix)
    kept = matrix.codes.nbytes + matrix.scales.nbytes
    assert peak < 2 * kept + 40 * 2**20 < matrix.codes.size * 8


class Dequantized(WeightsOver):
    """The weights as float32."""

    def matrix(self, name: str, start: int = 0, stop: int | None = None) -> DenseMatrix:
        return DenseMatrix(super().matrix(name, start, stop).dequantize())


class _Large(RandomWeights):
    """Rows made when they are asked for."""

    def matrix(self, name: str, start: int = 0, stop: int | None = None) -> DenseMatrix:
        rows, cols = self.shape(name)
        start, stop, _ = slice(start, stop).indices(rows)
        return DenseMatrix(np.ones((stop - start, cols), np.float16))
