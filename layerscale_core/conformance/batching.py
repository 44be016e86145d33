"""Batching: neither chunks nor neighbours may change a sequence's logits, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest

from layerscale_core.conformance.executor_under_test import PROMPT, SPEC, ExecutorUnderTest
from layerscale_core.conformance.executors import cut, kv_layout, logits_in_chunks, random_tokens
from layerscale_core.conformance.random_model import OPERATIONS, RandomWeights, tiny_spec
from layerscale_core.conformance.step_batches import PageBook, Span
from layerscale_core.errors import UnsupportedModelError
from layerscale_core.forward import make_executor
from layerscale_core.specs import Backend, Device, Executor, KVLayout


class BatchingContract(ExecutorUnderTest):
    """A sequence's logits depend on its own tokens alone."""

    @pytest.mark.parametrize("operation", OPERATIONS)
    def test_no_operation_knows_of_chunks_or_neighbours(self, backend: Backend, device: Device, operation: str) -> None:
        """``step``: what some families compute beside the ordinary is exact, too."""
        spec = tiny_spec(**OPERATIONS[operation])
        kv = kv_layout(spec, backend.capabilities.page_sizes[0])
        try:
            executor = make_executor(device, spec, RandomWeights(spec), kv)
        except UnsupportedModelError as refusal:
            pytest.skip(f"refused, as it may be: {refusal}")
        together = logits_in_chunks(executor, kv, [PROMPT])
        np.testing.assert_array_equal(logits_in_chunks(executor, kv, cut(PROMPT, 15, 1, 2)), together)
        book = PageBook(kv)
        sequence = book.sequence()
        rows = []
        for index, chunk in enumerate(cut(PROMPT, *[1] * 8, 5, 9)):
            neighbours = [Span(book.sequence(), random_tokens(spec, 1 + index % 3, seed=index))]
            logits = executor.step(book.batch([*neighbours, Span(sequence, chunk, True)])).copy()
            rows.append(logits[-len(chunk) :])
        np.testing.assert_array_equal(np.concatenate(rows), together)
        executor.close()

    @pytest.mark.parametrize(
        "chunks",
        [
            pytest.param(cut(PROMPT, *[1] * 36), id="one by one"),
            pytest.param(cut(PROMPT, 36), id="all but one"),
            pytest.param(cut(PROMPT, 1), id="one first"),
            pytest.param(cut(PROMPT, 15, 1, 1), id="around a page's end"),
            pytest.param(cut(PROMPT, 16, 16), id="at a page's end"),
            pytest.param(cut(PROMPT, 3, 7, 11, 2, 9), id="odd"),
        ],
    )
    def test_does_not_depend_on_how_a_prompt_is_cut(
        self, executor: Executor, kv: KVLayout, chunks: list[list[int]]
    ) -> None:
        """``step``: nor on how its prompt was cut into chunks."""
        whole = logits_in_chunks(executor, kv, [PROMPT])
        np.testing.assert_array_equal(logits_in_chunks(executor, kv, chunks), whole)

    def test_does_not_depend_on_neighbours(self, executor: Executor, kv: KVLayout) -> None:
        """``step``: a sequence's logits do not depend on its neighbours, be they in prefill or decoding."""
        alone = logits_in_chunks(executor, kv, cut(PROMPT, 20, 1, 1, 1))
        book = PageBook(kv, seed=1)
        sequence = book.sequence()
        neighbours = [book.sequence() for _ in range(8)]
        rows = []
        for step, chunk in enumerate(cut(PROMPT, 20, 1, 1, 1)):
            spans = [
                Span(neighbour, random_tokens(SPEC, 1 if (step + index) % 3 else 5 + index, seed=index))
                for index, neighbour in enumerate(neighbours)
            ]
            spans.insert(step * 2, Span(sequence, chunk, all_logits=True))
            logits = executor.step(book.batch(spans)).copy()
            rows.append(logits[step * 2 : step * 2 + len(chunk)])
        np.testing.assert_array_equal(np.concatenate(rows), alone)

    def test_every_sequence_of_a_ragged_batch_is_right(self, executor: Executor, kv: KVLayout) -> None:
        """Prefill chunks and decode tokens mixed: each row belongs to the sequence that asked for it."""
        prompts = [random_tokens(SPEC, length, seed=length) for length in (1, 2, 16, 17, 30)]
        book = PageBook(kv)
        sequences = [book.sequence() for _ in prompts]
        first = [Span(sequence, prompt[:-1]) for sequence, prompt in zip(sequences[1:], prompts[1:], strict=True)]
        executor.step(book.batch(first))
        last = [Span(sequence, prompt[-1:]) for sequence, prompt in zip(sequences, prompts, strict=True)]
        logits = executor.step(book.batch(last)).copy()
        for row, prompt in zip(logits, prompts, strict=True):
            np.testing.assert_array_equal(row, logits_in_chunks(executor, kv, [prompt])[-1])
