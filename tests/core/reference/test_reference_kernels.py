"""The reference against the definition written out once more, without pages, batches or float32."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layerscale_core.allocator import CountingAllocator
from layerscale_core.conformance import LAYOUTS, OPERATIONS, PageBook, RandomWeights, Span, tiny_spec
from layerscale_core.errors import OutOfMemoryError
from layerscale_core.forward import KernelExecutor
from layerscale_core.models import Activation, ModelSpec
from layerscale_core.reference import ReferenceKernels
from layerscale_core.reference.kernels import ROWS_PER_TILE
from layerscale_core.specs import KVLayout
from tests.support.plain_model import PlainModel

PROMPT = (3, 130, 14, 15, 92, 65, 35, 89, 79, 32, 38)


def kv_layout(spec: ModelSpec, num_pages: int = 16, page_size: int = 4) -> KVLayout:
    attention = spec.layers[0].attention
    return KVLayout(num_pages, page_size, len(spec.layers), attention.num_kv_heads, attention.head_dim)


def make_executor(spec: ModelSpec, layout: str = "f32", **options: object) -> KernelExecutor:
    kernels = ReferenceKernels(CountingAllocator(2**30, "the test's memory"), **options)
    return KernelExecutor(kernels, spec, RandomWeights(spec, layout), kv_layout(spec))


@pytest.mark.parametrize(
    "spec",
    [
        pytest.param(tiny_spec(), id="grouped-query"),
        pytest.param(tiny_spec(num_heads=3, num_kv_heads=1), id="multi-query"),
        pytest.param(tiny_spec(num_heads=4, num_kv_heads=4), id="multi-head"),
        pytest.param(tiny_spec(interleaved=True), id="interleaved-rope"),
        pytest.param(tiny_spec(rotary_dim=6), id="partial-rope"),
        pytest.param(tiny_spec(rotary_dim=6, interleaved=True, rope_magnitude=1.2), id="partial-interleaved-rope"),
        pytest.param(tiny_spec(tied_output=False), id="untied"),
        pytest.param(tiny_spec(num_layers=1, vocab_size=200, hidden_size=32, head_dim=8), id="one-layer"),
        *(pytest.param(tiny_spec(**options), id=name) for name, options in OPERATIONS.items()),
    ],
)
def test_equals_the_definition(spec: ModelSpec) -> None:
    executor = make_executor(spec, kv_dtype=np.float32)
    book = PageBook(kv_layout(spec))
    logits = executor.step(book.batch([Span(book.sequence(), PROMPT, all_logits=True)]))
    # Float32 against float64, through some thousand operations.
    np.testing.assert_allclose(logits, PlainModel(spec, RandomWeights(spec)).logits(PROMPT), rtol=0, atol=1e-5)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_computes_on_the_dequantised_weights(layout: str) -> None:
    spec = tiny_spec()
    book = PageBook(kv_layout(spec))
    logits = make_executor(spec, layout, kv_dtype=np.float32).step(book.batch([Span(book.sequence(), PROMPT, True)]))
    np.testing.assert_allclose(logits, PlainModel(spec, RandomWeights(spec, layout)).logits(PROMPT), rtol=0, atol=1e-5)


def test_rounds_keys_and_values_to_half_precision_by_default() -> None:
    spec = tiny_spec()
    book = PageBook(kv_layout(spec))
    rounded = make_executor(spec).step(book.batch([Span(book.sequence(), PROMPT)]))
    exact = make_executor(spec, kv_dtype=np.float32).step(book.batch([Span(book.sequence(), PROMPT)]))
    assert 0 < np.abs(rounded - exact).max() < 0.01


@given(
    rows=st.integers(0, 2 * ROWS_PER_TILE + 1),
    cols=st.sampled_from([16, 32, 64, 96, 576]),
    outputs=st.integers(1, 70),
    seed=st.integers(0, 2**32 - 1),
)
@settings(deadline=None, max_examples=60)
def test_a_row_of_a_product_does_not_depend_on_its_neighbours(rows: int, cols: int, outputs: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    kernels = ReferenceKernels(CountingAllocator(2**30, "the test's memory"))
    matrix = generator.standard_normal((outputs, cols), np.float32)
    x = generator.standard_normal((rows, cols), np.float32)
    together = kernels.linear(x, matrix)
    assert together.shape == (rows, outputs)
    for row in range(rows):
        np.testing.assert_array_equal(kernels.linear(x[row : row + 1], matrix)[0], together[row])


def test_larger_tiles_compute_the_same_up_to_rounding() -> None:
    spec = tiny_spec()
    book = PageBook(kv_layout(spec))
    exact = make_executor(spec).step(book.batch([Span(book.sequence(), PROMPT, True)]))
    fast = make_executor(spec, rows_per_tile=512).step(book.batch([Span(book.sequence(), PROMPT, True)]))
    np.testing.assert_allclose(fast, exact, rtol=0, atol=1e-4)


def test_a_window_counts_the_keys_that_are_still_there() -> None:
    """Where a sequence's middle was dropped, a token looks across the gap."""

    def last_logits(windows: tuple[int | None, ...]) -> np.ndarray:
        spec = tiny_spec(num_layers=1, windows=windows)
        executor, book = make_executor(spec), PageBook(kv_layout(spec))
        sequence = book.sequence()
        executor.step(book.batch([Span(sequence, PROMPT)]))
        del sequence.pages[1]  # tokens 4 to 7: left are 0 to 3 and 8 to 10
        return executor.step(book.batch([Span(sequence, [5])]))

    np.testing.assert_array_equal(last_logits((8,)), last_logits((None,)))
    assert np.abs(last_logits((7,)) - last_logits((None,))).max() > 1e-3


@pytest.mark.parametrize("activation", Activation)
def test_saturated_activations_are_quiet(activation: Activation) -> None:
    kernels = ReferenceKernels(CountingAllocator(2**30, "the test's memory"))
    gate = np.array([[-1e6, 0, 1e6]], np.float32)
    np.testing.assert_array_equal(
        kernels.gated_activation(gate, np.ones_like(gate), activation), np.array([[0, 0, 1e6]], np.float32)
    )


def test_memory_is_counted_and_given_back() -> None:
    spec = tiny_spec()
    layout = kv_layout(spec)
    allocator = CountingAllocator(2**30, "the test's memory")
    executor = KernelExecutor(ReferenceKernels(allocator), spec, RandomWeights(spec), layout)
    assert allocator.stats().used_bytes == 4 * spec.num_parameters + layout.total_bytes
    executor.close()
    executor.close()
    assert allocator.stats().used_bytes == 0


def test_a_model_that_does_not_fit_leaves_nothing_behind() -> None:
    spec = tiny_spec()
    allocator = CountingAllocator(4 * spec.num_parameters + 100, "the test's memory")
    with pytest.raises(OutOfMemoryError, match=r"KV cache needs 16,384 bytes, but the test's memory has 100 of"):
        KernelExecutor(ReferenceKernels(allocator), spec, RandomWeights(spec), kv_layout(spec))
    assert allocator.stats().used_bytes == 0


def test_memory_that_the_system_refuses_is_out_of_memory() -> None:
    kernels = ReferenceKernels(CountingAllocator(2**63, "the test's memory"))
    with pytest.raises(OutOfMemoryError, match="the system refused"):
        kernels.allocate_kv(KVLayout(2**40, 16, 30, 8, 128))
