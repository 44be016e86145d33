"""The contract of kernels: every operation by itself, what they fuse, what they replay, and what memory they take."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pytest

from layerscale_core.conformance.device import DeviceUnderTest
from layerscale_core.conformance.executors import kv_layout, random_tokens
from layerscale_core.conformance.kernel_arithmetic import ArithmeticContract, load, random_matrix
from layerscale_core.conformance.kernel_cache import Cache, CacheContract, attention_spec
from layerscale_core.conformance.random_model import LAYOUTS, RandomWeights, tiny_spec
from layerscale_core.conformance.side_by_side import MANY_TOKENS, SideBySide, take
from layerscale_core.conformance.step_batches import PageBook, Span
from layerscale_core.errors import OutOfMemoryError
from layerscale_core.forward import KernelExecutor
from layerscale_core.models import MlpSpec, RopeSpec
from layerscale_core.specs import Array, AttentionWeights, Backend, Device, Kernels, KVLayout, MlpWeights

HIDDEN, EPS = 96, 1e-5
ROPE = RopeSpec(tuple(10_000.0 ** (-pair / 8) for pair in range(8)))

MIXED_LAYOUTS = ("4-bit, groups of 32, mins", "6-bit, groups of 16", "8-bit, groups of 32")
"""Of a stack: files keep values finer than queries."""


class FusionContract:
    """What a layer's kernels may fuse equals its parts."""

    @pytest.mark.parametrize("has_biases", [False, True])
    @pytest.mark.parametrize("has_qk_norm", [False, True])
    @pytest.mark.parametrize("layouts", [("f32",) * 3, ("4-bit, groups of 32",) * 3, MIXED_LAYOUTS], ids=str)
    def test_project_qkv(self, both: SideBySide, layouts: tuple[str, ...], has_qk_norm: bool, has_biases: bool) -> None:
        """``project_qkv``: the queries, and the keys and values that attention then finds; x stays as it was."""
        spec = attention_spec(rope=ROPE, has_biases=has_biases, has_qk_norm=has_qk_norm)
        cache = Cache(spec, page_size=16)
        sizes = [heads * spec.head_dim for heads in (spec.num_heads, spec.num_kv_heads, spec.num_kv_heads)]
        matrices = [
            random_matrix(layout, size, HIDDEN, seed)
            for seed, (layout, size) in enumerate(zip(layouts, sizes, strict=True))
        ]
        x = both.random(cache.first.num_tokens, HIDDEN, seed=7)

        def vector(kernels: Kernels, size: int, seed: int) -> Any:
            return load(kernels, both.random(size, seed=seed))

        def attend(kernels: Kernels) -> Array:
            biases = tuple(vector(kernels, size, seed) for seed, size in enumerate(sizes)) if has_biases else None
            norms = [vector(kernels, spec.head_dim, seed) if has_qk_norm else None for seed in (11, 12)]
            norm, stack = vector(kernels, HIDDEN, 13), kernels.load_stack(matrices)
            weights = AttentionWeights(spec, EPS, norm, stack, biases, norms[0], norms[1], None, None)
            kv, step = kernels.allocate_kv(cache.layout), kernels.begin_step(cache.first)
            given = take(kernels, x)
            query = kernels.project_qkv(given, weights, kv, 1, step)
            np.testing.assert_array_equal(kernels.to_host(given), x)
            return kernels.attention(query, kv, 1, step, spec)

        both.compare(attend)

    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_gated_linear(self, both: SideBySide, layout: str) -> None:
        """``gated_linear``: norm, gate and up, activation; x stays as it was."""
        gate, up = (random_matrix(layout, 131, HIDDEN, seed) for seed in range(2))
        for num_tokens in MANY_TOKENS:
            x = both.random(num_tokens, HIDDEN, seed=num_tokens)

            def gated(kernels: Kernels, x: Any = x) -> Array:
                norm = load(kernels, both.random(HIDDEN, seed=1))
                weights = MlpWeights(MlpSpec(131), EPS, norm, kernels.load_stack([gate, up]), None, None)
                given = take(kernels, x)
                result = kernels.gated_linear(given, weights)
                np.testing.assert_array_equal(kernels.to_host(given), x)
                return result

            both.compare(gated)

    @pytest.mark.parametrize("layout", LAYOUTS)
    @pytest.mark.parametrize("has_post_norm", [False, True])
    def test_add_linear(self, both: SideBySide, layout: str, has_post_norm: bool) -> None:
        """``add_linear``: the product, normalised where there is a norm, added to the residual stream."""
        matrix = random_matrix(layout, 40, HIDDEN)
        for num_tokens in MANY_TOKENS:
            x, y = both.random(num_tokens, 40, seed=num_tokens), both.random(num_tokens, HIDDEN, seed=1)

            def add(kernels: Kernels, x: Any = x, y: Any = y) -> Array:
                post_norm = load(kernels, both.random(40, seed=2)) if has_post_norm else None
                return kernels.add_linear(
                    take(kernels, x), take(kernels, y), kernels.load_matrix(matrix), post_norm, EPS
                )

            both.compare(add)


@dataclass(frozen=True, slots=True)
class Eager:
    """Kernels that record nothing: every step is computed as if it were the first."""

    kernels: Kernels

    def run_step(self, step: Any, compute: Callable[[Any], Array]) -> Array:
        """``compute(step)``."""
        return compute(step)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.kernels, name)


class KernelsContract(DeviceUnderTest, ArithmeticContract, CacheContract, FusionContract):
    """Every promise of ``Kernels``, one by one, so that a wrong one has a name. To run where the device is present.

    ``BackendContract`` is the other half: what they compute together.
    """

    max_relative_error: ClassVar[float] = 0.01
    """Of one operation in half precision; see ``NumericsContract``."""

    @pytest.fixture
    def kernels(self, device: Device) -> Iterator[Kernels]:
        """The kernels under test."""
        kernels = device.make_kernels()
        yield kernels
        kernels.release()
        kernels.release()

    @pytest.fixture
    def both(self, kernels: Kernels) -> SideBySide:
        """The kernels under test beside the reference."""
        return SideBySide(kernels, self.max_relative_error)

    def test_a_replayed_step_is_the_step(self, backend: Backend, device: Device) -> None:
        """``run_step``: whatever is recorded and replayed gives the bits of what is computed anew.

        Batches grow and shrink, contexts pass the ends of pages, sequences change places, and tokens are always others.
        """
        spec = tiny_spec()
        kv = kv_layout(spec, backend.capabilities.page_sizes[0])
        replaying = KernelExecutor(device.make_kernels(), spec, RandomWeights(spec), kv)
        eager = KernelExecutor(Eager(device.make_kernels()), spec, RandomWeights(spec), kv)
        book = PageBook(kv)
        sequences = [book.sequence() for _ in range(5)]
        start = book.batch([Span(each, random_tokens(spec, 13 + index)) for index, each in enumerate(sequences)])
        for executor in (replaying, eager):
            executor.step(start)
        for index in range(12):
            active = [sequences[(index + place) % 5] for place in (0, 3, 1, 4, 2)[: 1 + (5 * index) % 4]]
            batch = book.batch([Span(each, random_tokens(spec, 1, seed=index)) for each in active])
            np.testing.assert_array_equal(replaying.step(batch), eager.step(batch))
        for executor in (replaying, eager):
            executor.close()

    def test_what_does_not_fit_is_refused(self, device: Device, kernels: Kernels) -> None:
        """``allocate_kv``: OutOfMemoryError, and nothing is taken."""
        before = device.allocator.stats()
        layout = KVLayout(1, 16, 1, 1, 16)
        too_many = device.allocator.stats().total_bytes // layout.total_bytes + 1
        with pytest.raises(OutOfMemoryError):
            kernels.allocate_kv(replace(layout, num_pages=too_many))
        assert device.allocator.stats() == before

    def test_the_cache_takes_what_its_layout_says(self, device: Device, kernels: Kernels) -> None:
        """``allocate_kv``: counted to the byte, as the memory plan does; ``release`` gives it back."""
        before = device.allocator.stats().used_bytes
        layout = KVLayout(8, 16, 2, 2, 16)
        kernels.allocate_kv(layout)
        assert device.allocator.stats().used_bytes == before + layout.total_bytes
        kernels.release()
        assert device.allocator.stats().used_bytes == before
