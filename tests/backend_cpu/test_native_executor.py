"""What the native executor promises beyond the backend contract."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from layerscale_backend_cpu.native_executor import ISA_VARIABLE, NativeExecutor, native_isa, supported_levels
from layerscale_backend_cpu.native_logits import NativeLogits
from layerscale_core.conformance.random_model import RandomWeights, tiny_spec
from layerscale_core.conformance.step_batches import PageBook, Span
from layerscale_core.engine.sampler import find_likeliest
from layerscale_core.errors import BackendError, OutOfMemoryError, StepError
from layerscale_core.models import Matrix
from layerscale_core.quantized_model import WeightsOver
from layerscale_core.specs import ActivationType, KVLayout, KVType, StepBatch

pytestmark = pytest.mark.skipif(native_isa() is None, reason="the native kernels are not compiled")

SPEC = tiny_spec(hidden_size=128, num_heads=8, num_kv_heads=2, intermediate_size=160)
LAYOUT = KVLayout(num_pages=200, page_size=16, num_layers=2, num_kv_heads=2, head_dim=16)
TOKENS = np.random.default_rng(3).integers(0, SPEC.vocab_size, 700)


def make_executor(
    num_threads: int = 2,
    layout: str = "4-bit, groups of 32, mins",
    kv_type: KVType = KVType.FP16,
    activation_type: ActivationType = ActivationType.INT16,
) -> NativeExecutor:
    kv = replace(LAYOUT, kv_type=kv_type)
    return NativeExecutor(SPEC, RandomWeights(SPEC, layout), kv, num_threads, activation_type)


class WatchedWeights(WeightsOver):
    """Counts the matrices, or parts of one, that were read and not given back to the system, and their weights."""

    num_held = most_held = most_at_once = 0

    def matrix(self, name: str, start: int = 0, stop: int | None = None) -> Matrix:
        self.num_held += 1
        self.most_held = max(self.most_held, self.num_held)
        matrix = super().matrix(name, start, stop)
        self.most_at_once = max(self.most_at_once, math.prod(matrix.shape))
        return matrix

    def drop_cache(self) -> None:
        self.num_held = 0
        super().drop_cache()


def logits(executor: NativeExecutor, lengths: list[int]) -> np.ndarray:
    """The logits of the first tokens, in chunks of these lengths."""
    book = PageBook(LAYOUT)
    sequence = book.sequence()
    rows, start = [], 0
    for length in lengths:
        batch = book.batch([Span(sequence, TOKENS[start : start + length], all_logits=True)])
        rows.append(executor.step(batch).copy())
        start += length
    return np.concatenate(rows)


@pytest.mark.parametrize(
    ("layout", "kv_type", "activation_type"),
    [
        ("4-bit, groups of 32, mins", KVType.FP16, ActivationType.INT16),
        ("4-bit, groups of 32, mins", KVType.FP16, ActivationType.INT8),
        ("6-bit, groups of 16", KVType.FP16, ActivationType.INT16),
        ("8-bit, groups of 32", KVType.FP16, ActivationType.INT16),
        ("8-bit, groups of 32", KVType.FP16, ActivationType.INT8),
        ("f16", KVType.FP16, ActivationType.INT16),
        ("f16", KVType.INT8, ActivationType.INT16),
        ("f16", KVType.INT4, ActivationType.INT16),
    ],
)
@pytest.mark.parametrize("isa", supported_levels())
def test_result_has_the_same_bits_for_any_chunking_and_number_of_threads(
    isa: str, layout: str, kv_type: KVType, activation_type: ActivationType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ISA_VARIABLE, isa)
    whole = logits(make_executor(1, layout, kv_type, activation_type), [600])
    for num_threads in (1, 2, 5):
        pieces = logits(
            make_executor(num_threads, layout, kv_type, activation_type), [1, 2, 3, 250, 17, 320, 1, 1, 1, 4]
        )
        np.testing.assert_array_equal(pieces, whole)


@pytest.mark.parametrize("isa", supported_levels())
def test_it_finds_the_tokens_that_a_search_of_its_logits_finds(isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ISA_VARIABLE, isa)
    spec = tiny_spec(vocab_size=5003)
    executor = NativeExecutor(spec, RandomWeights(spec), LAYOUT, num_threads=2)

    def step() -> NativeLogits:
        book = PageBook(LAYOUT)
        return executor.step(book.batch([Span(book.sequence(), TOKENS[:40], all_logits=True)]))

    found = step()
    assert found.likeliest == find_likeliest(found.copy())
    assert len(set(found.likeliest)) > 1
    np.testing.assert_array_equal(found[-1], np.asarray(found)[39])
    assert found.shape == (40, 5003)
    executor._executor.add_vector("output_norm", np.full(spec.hidden_size, np.inf, np.float32))
    assert step().likeliest == [None] * 40


@pytest.mark.parametrize("layout", ["4-bit, groups of 32, mins", "6-bit, groups of 16", "8-bit, groups of 32"])
def test_every_instruction_set_rounds_activations_to_the_same_8_bits(
    layout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = []
    for isa in supported_levels():
        monkeypatch.setenv(ISA_VARIABLE, isa)
        # On codes, attention is the same everywhere; on halves it is in bfloat16 where the processor has that.
        results.append(logits(make_executor(1, layout, KVType.INT8, ActivationType.INT8), [40]))
    for result in results[1:]:  # a code that fell to the other side of a half is some 1e-3 of the result
        np.testing.assert_allclose(result, results[0], rtol=0, atol=0.02 * np.abs(results[0]).max())
    exact = logits(make_executor(1, layout, KVType.INT8), [40])
    assert 0 < np.abs(results[0] - exact).max() < 0.1 * np.abs(exact).max()


def make_spiky_executor(activation_type: ActivationType) -> NativeExecutor:
    """Of a model whose norms give one channel in 512 a weight of 40, as the norms of real models do."""
    spec = tiny_spec(hidden_size=512, num_heads=8, num_kv_heads=2, num_layers=2)
    weights = RandomWeights(spec, "4-bit, groups of 32, mins")
    executor = NativeExecutor(spec, weights, LAYOUT, 2, activation_type)
    for name in ("layers.0.attention_norm", "layers.0.mlp_norm", "layers.1.mlp_norm", "output_norm"):
        norm = weights.vector(name)
        norm[100] = 40
        executor._executor.add_vector(name, norm)
    return executor


@pytest.mark.parametrize("isa", supported_levels())
def test_outliers_cost_8_bits_no_accuracy_and_other_tokens_no_bits(isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ISA_VARIABLE, isa)
    rounded = logits(make_spiky_executor(ActivationType.INT8), [90])
    exact = logits(make_spiky_executor(ActivationType.INT16), [90])
    assert 0 < np.abs(rounded - exact).mean() < 0.02 * np.abs(exact).mean()  # 0.013, and 0.036 with 8 bits for all
    pieces = logits(make_spiky_executor(ActivationType.INT8), [1, 2, 70, 9, 8])
    np.testing.assert_array_equal(pieces, rounded)


@pytest.mark.parametrize("kv_type", KVType)
def test_what_a_page_held_for_an_earlier_owner_cannot_reach_a_result(kv_type: KVType) -> None:
    executor = make_executor(kv_type=kv_type)
    clean = logits(executor, [40])
    poisoned = make_executor(kv_type=kv_type)
    poison = RandomWeights(SPEC, "4-bit, groups of 32, mins").vector("output_norm")
    poison[:] = np.nan  # makes every key and value that follows NaN
    poisoned._executor.add_vector("layers.0.attention_norm", poison)
    assert np.isnan(logits(poisoned, [160])).all()
    healthy = RandomWeights(SPEC, "4-bit, groups of 32, mins").vector("layers.0.attention_norm")
    poisoned._executor.add_vector("layers.0.attention_norm", healthy)
    np.testing.assert_array_equal(logits(poisoned, [40]), clean)
    poisoned.shift_positions(np.arange(LAYOUT.num_pages, dtype=np.int32), 5)
    np.testing.assert_array_equal(logits(poisoned, [40]), clean)


@pytest.mark.parametrize("kv_type", KVType)
@pytest.mark.parametrize("head_dim", [16, 20, 64, 128])
def test_a_cache_takes_the_bytes_that_its_layout_says(kv_type: KVType, head_dim: int) -> None:
    spec = tiny_spec(head_dim=head_dim)
    sizes = []
    for num_pages in (40, 48):  # a difference, so that weights cancel out; of eight pages, so that alignment does
        layout = KVLayout(num_pages, 16, 2, 2, head_dim, kv_type=kv_type)
        executor = NativeExecutor(spec, RandomWeights(spec), layout, num_threads=1)
        sizes.append(executor.allocated_bytes)
        content = executor.read_pages(np.array([0], np.int32))
        assert content.nbytes == layout.total_bytes // num_pages
        executor.close()
    assert sizes[1] - sizes[0] == 8 * content.nbytes


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("token_ids", [SPEC.vocab_size]),
        ("token_ids", [-1]),
        ("positions", [-1]),
        ("slot_mapping", [LAYOUT.num_pages * 16]),
        ("slot_mapping", [-1]),
        ("page_tables", [[LAYOUT.num_pages]]),
        ("page_stops", [[17]]),
        ("page_stops", [[0]]),
        ("page_starts", [[2]]),
        ("logits_indices", [1]),
        ("cu_seqlens", [0, 2]),
        ("cu_seqlens", [1, 1]),
        ("positions", [0, 1]),
    ],
)
def test_a_batch_that_points_outside_is_refused_and_harms_nothing(field: str, value: list[int]) -> None:
    executor = make_executor()
    valid = {
        "token_ids": np.array([5], np.int32),
        "positions": np.array([0], np.int32),
        "slot_mapping": np.array([0], np.int64),
        "cu_seqlens": np.array([0, 1], np.int32),
        "page_tables": np.array([[0]], np.int32),
        "page_starts": np.array([[0]], np.int32),
        "page_stops": np.array([[1]], np.int32),
        "logits_indices": np.array([0], np.int32),
    }
    before = executor.step(StepBatch(**valid)).copy()
    broken = dict(valid)
    broken[field] = np.array(value, valid[field].dtype)
    with pytest.raises(StepError):
        executor.step(StepBatch(**broken))
    np.testing.assert_array_equal(executor.step(StepBatch(**valid)), before)


def test_a_cache_beyond_all_memory_is_refused_in_one_line() -> None:
    huge = KVLayout(num_pages=1 << 30, page_size=16, num_layers=2, num_kv_heads=2, head_dim=16)
    with pytest.raises(OutOfMemoryError) as caught:
        NativeExecutor(SPEC, RandomWeights(SPEC), huge, 1)
    assert "--context" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_level_is_refused_with_the_choices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ISA_VARIABLE, "avx9000")
    with pytest.raises(BackendError, match=f"{ISA_VARIABLE}=avx9000.*baseline.*numpy"):
        native_isa()


def test_numpy_switches_the_native_kernels_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ISA_VARIABLE, "numpy")
    assert native_isa() is None
    with pytest.raises(BackendError, match="not compiled"):
        make_executor()


def test_the_file_is_given_back_as_it_is_packed() -> None:
    weights = WatchedWeights(RandomWeights(SPEC, "4-bit, groups of 32, mins"))
    NativeExecutor(SPEC, weights, LAYOUT, num_threads=1)
    assert (weights.most_held, weights.num_held) == (1, 0)


def test_a_large_matrix_is_packed_a_million_weights_at_a_time() -> None:
    spec = replace(SPEC, vocab_size=3 * 2**20 // SPEC.hidden_size)
    weights = WatchedWeights(RandomWeights(spec, "4-bit, groups of 32, mins"))
    NativeExecutor(spec, weights, LAYOUT, num_threads=1)
    assert 2**19 < weights.most_at_once <= 2**20
