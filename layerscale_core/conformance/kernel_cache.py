"""The kernels that keep keys and values: written, attended to, copied, cut, rotated, taken out and put back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from layerscale_core.conformance.kernel_arithmetic import ROPES
from layerscale_core.conformance.numerics import CODE_FLIPS
from layerscale_core.conformance.side_by_side import SideBySide, take
from layerscale_core.conformance.step_batches import PageBook, Span
from layerscale_core.models import AttentionSpec, RopeSpec
from layerscale_core.specs import Array, Backend, Kernels, KVLayout, KVType, PageRange, StepBatch

NUM_PAGES, NUM_LAYERS = 24, 2

HEADS: dict[str, tuple[int, int, int]] = {
    "grouped": (4, 2, 16),
    "multi-head": (3, 3, 64),
    "multi-query of odd width": (6, 1, 20),
    "wide": (2, 1, 128),
}
"""Query heads, key-value heads, width."""

VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "another scale": {"scale": 0.3},
    "window": {"window": 9},
    "window of a page": {"window": 16},
    "window of one key": {"window": 1},
    "soft cap": {"softcap": 0.7},
    "window and soft cap": {"window": 5, "softcap": 2.0},
}
"""Changes of an attention."""

Drop = Callable[[list[PageRange]], list[PageRange]]


def attention_spec(heads: str = "grouped", **changes: Any) -> AttentionSpec:
    """An attention of these heads; keys are given as they are to be stored."""
    num_heads, num_kv_heads, head_dim = HEADS[heads]
    return replace(AttentionSpec(num_heads, num_kv_heads, head_dim, head_dim**-0.5, RopeSpec(())), **changes)


class Cache:
    """Three sequences of different lengths whose keys and values are written, and the next step of each.

    Args:
        page_size: in tokens.
        drop: pages of the first sequence that are left of it before the next step.
    """

    lengths = (37, 5, 16)
    next_lengths = (3, 1, 6)

    def __init__(
        self, spec: AttentionSpec, page_size: int, kv_type: KVType = KVType.FP16, drop: Drop = lambda pages: pages
    ) -> None:
        self.spec = spec
        self.layout = KVLayout(NUM_PAGES, page_size, NUM_LAYERS, spec.num_kv_heads, spec.head_dim, kv_type=kv_type)
        self.book = PageBook(self.layout)
        self.sequences = [self.book.sequence() for _ in self.lengths]
        self.first = self._batch(self.lengths)
        self.page_ids = [np.array([page.page_id for page in each.pages], np.int32) for each in self.sequences]
        self.sequences[0].pages = drop(self.sequences[0].pages)
        self.next = self._batch(self.next_lengths)

    def _batch(self, lengths: tuple[int, ...]) -> StepBatch:
        spans = [Span(sequence, [0] * length) for sequence, length in zip(self.sequences, lengths, strict=True)]
        return self.book.batch(spans)

    def attend(self, kernels: Kernels, both: SideBySide, between: Callable[[Any], None] | None = None) -> Array:
        """Write both steps into the second layer, and attend to them from the next one's tokens.

        Args:
            between: what is done to the cache after the first.
        """
        kv = kernels.allocate_kv(self.layout)
        self.store(kernels, both, kv, self.first, seed=1)
        if between is not None:
            between(kv)
        self.store(kernels, both, kv, self.next, seed=5)
        query = both.random(self.next.num_tokens, self.spec.num_heads * self.spec.head_dim, seed=9)
        return kernels.attention(take(kernels, query), kv, 1, kernels.begin_step(self.next), self.spec)

    def store(self, kernels: Kernels, both: SideBySide, kv: Any, batch: StepBatch, seed: int) -> None:
        """Write random keys and values, others into each layer."""
        width = self.spec.num_kv_heads * self.spec.head_dim
        for layer in range(NUM_LAYERS):
            key, value = (both.random(batch.num_tokens, width, seed=seed + 2 * layer + part) for part in range(2))
            kernels.store_kv(take(kernels, key), take(kernels, value), kv, layer, kernels.begin_step(batch))


class CacheContract:
    """Keys and values at every precision that the backend declares."""

    @pytest.fixture(params=KVType)
    def kv_type(self, request: pytest.FixtureRequest, backend: Backend) -> KVType:
        """Each precision that the backend declares."""
        kv_type: KVType = request.param
        if kv_type not in backend.capabilities.kv_types:
            pytest.skip(f"the backend declares no {kv_type}")
        return kv_type

    @pytest.fixture
    def page_size(self, backend: Backend) -> int:
        """The preferred one."""
        return backend.capabilities.page_sizes[0]

    @pytest.mark.parametrize("heads", HEADS)
    def test_attention_at_every_precision(self, both: SideBySide, heads: str, kv_type: KVType, page_size: int) -> None:
        """``store_kv`` and ``attention``: a ragged batch over scattered pages, chunks and single tokens."""
        cache = Cache(attention_spec(heads), page_size, kv_type)
        both.compare(lambda kernels: cache.attend(kernels, both), CODE_FLIPS[kv_type])

    @pytest.mark.parametrize("variant", VARIANTS)
    def test_attention_in_every_variant(self, both: SideBySide, variant: str, page_size: int) -> None:
        """``attention``: scale, window and soft cap."""
        cache = Cache(attention_spec(**VARIANTS[variant]), page_size)
        both.compare(lambda kernels: cache.attend(kernels, both))

    def test_attention_to_valid_slots_alone(self, both: SideBySide, kv_type: KVType, page_size: int) -> None:
        """``attention``: what was dropped at the front and in the middle is not seen, and a window counts what is."""

        def drop(pages: list[PageRange]) -> list[PageRange]:
            first, second, *rest = pages
            return [PageRange(first.page_id, 3, first.stop), PageRange(second.page_id, 2, page_size // 2), *rest]

        whole, cut = (Cache(attention_spec(window=30), page_size, kv_type, each) for each in (lambda p: p, drop))
        actual = both.compare(lambda kernels: cut.attend(kernels, both), CODE_FLIPS[kv_type])
        assert np.abs(actual - both.run(lambda kernels: whole.attend(kernels, both))).max() > 0.05

    def test_a_token_attends_by_itself(self, both: SideBySide, kv_type: KVType, page_size: int) -> None:
        """``Executor.step``: a token's result has the same bits whatever else is in the step."""
        cache = Cache(attention_spec(), page_size, kv_type)
        together = both.run(lambda kernels: cache.attend(kernels, both))
        batch, stop = cache.next, cache.next_lengths[0]
        lone = replace(
            batch,
            **{name: getattr(batch, name)[:stop] for name in ("token_ids", "positions", "slot_mapping")},
            cu_seqlens=batch.cu_seqlens[:2],
            logits_indices=batch.logits_indices[:1],
            **{name: getattr(batch, name)[:1] for name in ("page_tables", "page_starts", "page_stops")},
        )

        def attend(kernels: Kernels) -> Array:
            kv = kernels.allocate_kv(cache.layout)
            cache.store(kernels, both, kv, cache.first, seed=1)
            cache.store(kernels, both, kv, batch, seed=5)
            query = both.random(batch.num_tokens, cache.spec.num_heads * cache.spec.head_dim, seed=9)[:stop]
            return kernels.attention(take(kernels, query), kv, 1, kernels.begin_step(lone), cache.spec)

        np.testing.assert_array_equal(both.run(attend), together[:stop])

    def test_a_fresh_cache_is_empty(self, both: SideBySide, kv_type: KVType, page_size: int) -> None:
        """``allocate_kv``: zeroed."""
        cache, ids = Cache(attention_spec(), page_size, kv_type), np.arange(NUM_PAGES, dtype=np.int32)
        for _ in range(2):
            kv = both.kernels.allocate_kv(cache.layout)
            content = both.kernels.read_pages(kv, ids)
            assert content.shape[0] == NUM_PAGES
            assert not content.any()
            cache.store(both.kernels, both, kv, cache.first, seed=1)

    def test_a_copied_page_is_the_same_and_its_own(self, both: SideBySide, kv_type: KVType, page_size: int) -> None:
        """``copy_pages``: all layers, bit for bit; what is written to the original afterwards stays there."""
        kernels, cache = both.kernels, Cache(attention_spec(), page_size, kv_type)
        kv = kernels.allocate_kv(cache.layout)
        cache.store(kernels, both, kv, cache.first, seed=1)
        copies = np.array([cache.book.take_page() for _ in cache.page_ids[0]], np.int32)
        before = kernels.read_pages(kv, cache.page_ids[0]).copy()
        kernels.copy_pages(kv, cache.page_ids[0], copies)
        cache.store(kernels, both, kv, cache.first, seed=33)
        assert before.any()
        assert (kernels.read_pages(kv, cache.page_ids[0]) != before).any()
        np.testing.assert_array_equal(kernels.read_pages(kv, copies), before)

    @pytest.mark.parametrize("rope", [name for name in ROPES if name != "none"])
    def test_rotated_keys(self, both: SideBySide, rope: str, kv_type: KVType, page_size: int) -> None:
        """``shift_positions``: one layer's keys of the given pages, forwards and back, and no magnitude once more."""
        head_dim, rotation = ROPES[rope]
        spec = replace(attention_spec(), head_dim=head_dim)
        cache = Cache(spec, page_size, kv_type)
        for delta in (700, -661):

            def shift(kernels: Kernels, kv: Any, delta: int = delta) -> None:
                kernels.shift_positions(kv, 1, cache.page_ids[0], delta, rotation)

            actual = both.compare(
                lambda kernels: cache.attend(kernels, both, lambda kv: shift(kernels, kv)),
                3 * CODE_FLIPS[kv_type],
            )
            still = both.run(lambda kernels: cache.attend(kernels, both))
            assert np.abs(actual[:3] - still[:3]).max() > 0.05, "rotating must matter, or this shows nothing"
            np.testing.assert_array_equal(actual[3:], still[3:])

    def test_other_layers_and_values_are_not_rotated(self, both: SideBySide, kv_type: KVType, page_size: int) -> None:
        """``shift_positions``: of one layer's keys alone."""
        kernels, cache = both.kernels, Cache(attention_spec(), page_size, kv_type)
        kv = kernels.allocate_kv(cache.layout)
        cache.store(kernels, both, kv, cache.first, seed=1)
        before = kernels.read_pages(kv, cache.page_ids[0]).copy()
        kernels.shift_positions(kv, 0, cache.page_ids[0], 50, ROPES["narrow"][1])
        changed = int((kernels.read_pages(kv, cache.page_ids[0]) != before).sum())
        assert 0 < changed <= before.size // (2 * NUM_LAYERS)

    def test_pages_leave_and_return(self, both: SideBySide, kv_type: KVType, page_size: int) -> None:
        """``read_pages`` and ``write_pages``: bit for bit, into other pages of another cache; what it means is told."""
        kernels, cache = both.kernels, Cache(attention_spec(), page_size, kv_type)
        kv, other = (kernels.allocate_kv(cache.layout) for _ in range(2))
        cache.store(kernels, both, kv, cache.first, seed=1)
        content = kernels.read_pages(kv, cache.page_ids[0])
        assert content.dtype == np.uint8
        elsewhere = cache.page_ids[0][::-1].copy()
        kernels.write_pages(other, elsewhere, content)
        np.testing.assert_array_equal(kernels.read_pages(other, elsewhere), content)
        rest = np.setdiff1d(np.arange(NUM_PAGES, dtype=np.int32), elsewhere)
        assert not kernels.read_pages(other, rest).any()
        assert kernels.kv_format

    def test_content_of_another_size_is_refused(self, both: SideBySide, kv_type: KVType, page_size: int) -> None:
        """``write_pages``: ValueError, and no page is changed."""
        kernels, cache = both.kernels, Cache(attention_spec(), page_size, kv_type)
        kv, ids = kernels.allocate_kv(cache.layout), np.array([3, 1], np.int32)
        cache.store(kernels, both, kv, cache.first, seed=1)
        before = kernels.read_pages(kv, ids).copy()
        for wrong in (before[:1], before[:, 1:], before[:, :-1].repeat(2, axis=1)):
            with pytest.raises(ValueError, match=r"."):
                kernels.write_pages(kv, ids, wrong)
        np.testing.assert_array_equal(kernels.read_pages(kv, ids), before)
