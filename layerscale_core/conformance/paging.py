"""Paging: a sequence's pages may lie anywhere, be cut, copied, shifted, taken out and put back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest

from layerscale_core.conformance.executor_under_test import PROMPT, SPEC, ExecutorUnderTest
from layerscale_core.conformance.executors import (
    Logits,
    kv_layout,
    logits_in_chunks,
    open_executor,
    random_tokens,
    reference_executor,
    relative_error,
)
from layerscale_core.conformance.random_model import tiny_spec
from layerscale_core.conformance.step_batches import PageBook, PagedSequence, Span
from layerscale_core.errors import UnsupportedModelError
from layerscale_core.models import ModelSpec, RopeSpec
from layerscale_core.specs import Backend, Device, Executor, KVLayout, KVType, PageRange

_FAST = SPEC.layers[0].attention.rope
ROPES: dict[str, tuple[RopeSpec, RopeSpec]] = {
    "split halves": (_FAST, _FAST),
    "interleaved": (replace(_FAST, interleaved=True),) * 2,
    "partial": (replace(_FAST, inv_freq=_FAST.inv_freq[:3]),) * 2,
    "with magnitude": (replace(_FAST, magnitude=1.2),) * 2,
    "another in each layer": (_FAST, replace(_FAST, inv_freq=tuple(0.3 * f for f in _FAST.inv_freq))),
}
"""The RoPE of each of the two layers."""
SHIFT_ROUNDING = {KVType.FP16: 1e-3, KVType.INT8: 0.02, KVType.INT4: 0.2}
"""What storing shifted keys adds to the error of the logits: they are rounded a second time."""


class PagingContract(ExecutorUnderTest):
    """Where a sequence's keys and values lie changes nothing, and what is done to their pages is exact.

    Attributes:
        max_relative_error: of logits, where what is computed must differ in its rounding; see ``NumericsContract``.
    """

    max_relative_error: float

    def test_does_not_depend_on_where_pages_lie(self, executor: Executor, kv: KVLayout) -> None:
        """A page is a page; and one that held another sequence's keys carries nothing over."""
        fresh = logits_in_chunks(executor, kv, [PROMPT], seed=0)
        logits_in_chunks(executor, kv, [random_tokens(SPEC, 48, seed=9)], seed=1)
        np.testing.assert_array_equal(logits_in_chunks(executor, kv, [PROMPT], seed=1), fresh)
        np.testing.assert_array_equal(logits_in_chunks(executor, kv, [PROMPT], seed=2), fresh)

    @pytest.mark.parametrize(
        "drop",
        [
            pytest.param(lambda pages: pages[1:], id="whole page"),
            pytest.param(
                lambda pages: [PageRange(pages[0].page_id, 5, pages[0].stop), *pages[1:]], id="part of the first"
            ),
            pytest.param(lambda pages: [pages[0], PageRange(pages[1].page_id, 3, 9), *pages[2:]], id="in the middle"),
            pytest.param(
                lambda pages: [PageRange(pages[-1].page_id, pages[-1].stop - 1, pages[-1].stop)], id="all but one"
            ),
        ],
    )
    def test_attends_to_valid_slots_only(
        self, device: Device, kv: KVLayout, drop: Callable[[list[PageRange]], list[PageRange]]
    ) -> None:
        """Tokens dropped from a page's valid range are not attended to; the others keep their place and order."""
        with open_executor(device, SPEC, kv) as executor:
            actual = _logits_after_dropping(executor, kv, drop)
        truth = _logits_after_dropping(reference_executor(SPEC, kv), kv, drop)
        whole = _logits_after_dropping(reference_executor(SPEC, kv), kv, lambda pages: pages)
        assert relative_error(truth, whole) > 10 * self.max_relative_error, (
            "dropping must matter, or this shows nothing"
        )
        assert relative_error(actual, truth) <= self.max_relative_error

    def test_a_copied_page_holds_the_same_and_is_its_own(self, executor: Executor, kv: KVLayout) -> None:
        """``copy_pages`` copies all layers; writing to a copy leaves the original as it was."""
        alone = logits_in_chunks(executor, kv, [PROMPT])[-1]
        book = PageBook(kv)
        original = book.sequence()
        executor.step(book.batch([Span(original, PROMPT[:-1])]))
        fork = _elsewhere(original, book)
        executor.copy_pages(_page_ids(original), _page_ids(fork))
        other_token = (PROMPT[-1] + 1) % SPEC.vocab_size
        diverged = executor.step(book.batch([Span(fork, [other_token])])).copy()
        np.testing.assert_array_equal(executor.step(book.batch([Span(original, PROMPT[-1:])]))[0], alone)
        np.testing.assert_array_equal(diverged, logits_in_chunks(executor, kv, [[*PROMPT[:-1], other_token]])[-1:])

    @pytest.mark.parametrize("kv_type", KVType)
    @pytest.mark.parametrize("ropes", ROPES.values(), ids=ROPES)
    def test_shifted_keys_are_those_of_the_shifted_positions(
        self, backend: Backend, device: Device, ropes: Sequence[RopeSpec], kv_type: KVType
    ) -> None:
        """``shift_positions``: all layers, each by its own RoPE, forwards and back; and no other page."""
        if kv_type not in backend.capabilities.kv_types:
            pytest.skip(f"the backend declares no {kv_type}")
        spec = _with_ropes(ropes)
        kv = kv_layout(spec, backend.capabilities.page_sizes[0], kv_type=kv_type)
        try:
            with open_executor(device, spec, kv) as executor:
                for first, delta in ((0, 1000), (700, -661)):
                    actual = _logits_after_shift(executor, kv, first, delta)
                    truth = _logits_after_shift(reference_executor(spec, kv), kv, first + delta, 0)
                    still = _logits_after_shift(reference_executor(spec, kv), kv, first, delta, of_pages=0)
                    tolerance = self.max_relative_error + SHIFT_ROUNDING[kv_type]
                    assert relative_error(still, truth) > 3 * tolerance, "shifting must matter, or this shows nothing"
                    assert relative_error(actual, truth) <= tolerance
        except UnsupportedModelError as refusal:
            pytest.skip(f"refused, as it may be: {refusal}")

    def test_pages_that_left_and_returned_hold_the_same(
        self, executor: Executor, device: Device, kv: KVLayout, weight_layout: str
    ) -> None:
        """``read_pages`` and ``write_pages``: bit for bit, elsewhere and in an executor of the same fingerprint."""
        alone = logits_in_chunks(executor, kv, [PROMPT])[-1]
        book = PageBook(kv)
        original = book.sequence()
        executor.step(book.batch([Span(original, PROMPT[:-1])]))
        content = executor.read_pages(_page_ids(original))
        assert content.dtype == np.uint8
        assert content.shape == (len(original.pages), content.shape[1])
        smaller = replace(kv, num_pages=kv.num_pages // 2)
        with open_executor(device, SPEC, smaller, weight_layout) as other:
            assert other.kv_fingerprint == executor.kv_fingerprint
            other_book = PageBook(smaller, seed=3)
            returned = _elsewhere(original, other_book)
            other.write_pages(_page_ids(returned), content)
            np.testing.assert_array_equal(other.read_pages(_page_ids(returned)), content)
            np.testing.assert_array_equal(other.step(other_book.batch([Span(returned, PROMPT[-1:])]))[0], alone)

    def test_pages_of_another_size_are_refused(self, executor: Executor) -> None:
        """``write_pages``: the error comes before anything is changed."""
        ids = np.array([3, 1], np.int32)
        before = executor.read_pages(ids)
        for wrong in (before[:1], before[:, 1:], before[:, :-1].repeat(2, axis=1)):
            with pytest.raises(ValueError, match=r"."):
                executor.write_pages(ids, wrong)
        np.testing.assert_array_equal(executor.read_pages(ids), before)

    def test_the_fingerprint_tells_page_shapes_apart(self, backend: Backend, device: Device) -> None:
        """``kv_fingerprint``: what was written for other heads or layers does not pass for one's own."""
        prints = set()
        specs = (SPEC, tiny_spec(num_layers=1), tiny_spec(num_kv_heads=1), tiny_spec(head_dim=32))
        for spec in specs:
            kv = kv_layout(spec, backend.capabilities.page_sizes[0], num_pages=2)
            with open_executor(device, spec, kv) as executor:
                prints.add(executor.kv_fingerprint)
        assert len(prints) == len(specs)


def _logits_after_dropping(
    executor: Executor, kv: KVLayout, drop: Callable[[list[PageRange]], list[PageRange]]
) -> Logits:
    book = PageBook(kv)
    sequence = book.sequence()
    executor.step(book.batch([Span(sequence, PROMPT)]))
    sequence.pages = drop(sequence.pages)
    return executor.step(book.batch([Span(sequence, random_tokens(SPEC, 9, seed=7), True)])).copy()


def _logits_after_shift(
    executor: Executor, kv: KVLayout, first_position: int, delta: int, of_pages: int | None = None
) -> Logits:
    """Logits after a prompt whose first pages (all by default) were shifted once it was computed."""
    book = PageBook(kv)
    bystander, sequence = book.sequence(), book.sequence()
    sequence.next_position = first_position
    tokens = random_tokens(SPEC, 9, seed=7)
    alone = executor.step(book.batch([Span(bystander, PROMPT), Span(sequence, PROMPT)])).copy()
    executor.shift_positions(_page_ids(sequence)[:of_pages], delta)
    sequence.next_position += delta
    logits = executor.step(book.batch([Span(sequence, tokens, True)])).copy()
    bystander.pages[-1].stop -= 1
    bystander.next_position -= 1
    np.testing.assert_array_equal(executor.step(book.batch([Span(bystander, PROMPT[-1:])]))[0], alone[0])
    return logits


def _with_ropes(ropes: Sequence[RopeSpec]) -> ModelSpec:
    """The suite's model with the given RoPE in each layer."""
    layers = [
        replace(layer, attention=replace(layer.attention, rope=rope))
        for layer, rope in zip(SPEC.layers, ropes, strict=True)
    ]
    return replace(SPEC, layers=tuple(layers))


def _elsewhere(sequence: PagedSequence, book: PageBook) -> PagedSequence:
    """The same place in other pages."""
    pages = [PageRange(book.take_page(), page.start, page.stop) for page in sequence.pages]
    return PagedSequence(pages, sequence.next_position)


def _page_ids(sequence: PagedSequence) -> np.typing.NDArray[np.int32]:
    return np.array([page.page_id for page in sequence.pages], np.int32)
