"""The forward pass over plain torch predicts the plain computation's tokens, whatever its pages go through."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from layerscale_core.allocator import CountingAllocator
from layerscale_core.conformance import PageBook, PagedSequence, Span
from layerscale_core.formats.gguf import GgufModelFile
from layerscale_core.forward import KernelExecutor
from layerscale_core.gpu.torch_kernels import TorchKernels
from layerscale_core.specs import Executor, KVLayout, KVType, PageRange
from tests.oracle.conftest import all_logits
from tests.oracle.plain_llama import PlainLlama
from tests.oracle.predictions import CORPUS

pytestmark = [pytest.mark.model, pytest.mark.xdist_group("oracle"), pytest.mark.timeout(600)]

NUM_TOKENS = 96
MIN_AGREEMENT = {KVType.FP16: 1.0, KVType.INT8: 0.98, KVType.INT4: 0.85}


@contextmanager
def torch_executor(file: GgufModelFile, layout: KVLayout) -> Iterator[Executor]:
    """Core's executor on torch's CPU device."""
    kernels = TorchKernels(torch.device("cpu"), CountingAllocator(2**32, "the test's memory"), rows_per_product=8)
    executor = KernelExecutor(kernels, file.spec, file.weights, layout)
    yield executor
    executor.close()


@pytest.fixture(scope="module")
def text(model_file: GgufModelFile) -> list[int]:
    return model_file.make_tokenizer().encode(CORPUS[0])[:NUM_TOKENS]


@pytest.fixture(scope="module")
def true_tokens(real_model_path: Path, text: list[int]) -> np.ndarray:
    """The plain computation's greedy token behind each of the text's."""
    tokens: np.ndarray = PlainLlama(real_model_path).logits(text).argmax(axis=1)
    return tokens


def test_a_session_predicts_the_true_tokens(
    model_file: GgufModelFile, layout: KVLayout, text: list[int], true_tokens: np.ndarray
) -> None:
    with torch_executor(model_file, layout) as executor:
        np.testing.assert_array_equal(all_logits(executor, layout, text).argmax(axis=1), true_tokens)
        book = PageBook(layout)
        session = book.sequence()
        executor.step(book.batch([Span(session, text[:-8])]))
        forked, restored = elsewhere(session, book), elsewhere(session, book)
        executor.copy_pages(page_ids(session), page_ids(forked))
        executor.write_pages(page_ids(restored), executor.read_pages(page_ids(session)))
        executor.shift_positions(page_ids(session), 500)
        session.next_position += 500
        rows = executor.step(book.batch([Span(each, text[-8:], True) for each in (session, forked, restored)]))
        for tokens in np.asarray(rows).argmax(axis=1).reshape(3, 8):
            np.testing.assert_array_equal(tokens, true_tokens[-8:])


@pytest.mark.parametrize("kv_type", [KVType.INT8, KVType.INT4])
def test_codes_in_the_cache_change_few_predictions(
    model_file: GgufModelFile, layout: KVLayout, text: list[int], true_tokens: np.ndarray, kv_type: KVType
) -> None:
    coded = KVLayout(32, 16, layout.num_layers, layout.num_kv_heads, layout.head_dim, kv_type=kv_type)
    with torch_executor(model_file, coded) as executor:
        agreement = (all_logits(executor, coded, text).argmax(axis=1) == true_tokens).mean()
    assert agreement >= MIN_AGREEMENT[kv_type]


def elsewhere(sequence: PagedSequence, book: PageBook) -> PagedSequence:
    """The same place in other pages."""
    pages = [PageRange(book.take_page(), page.start, page.stop) for page in sequence.pages]
    return PagedSequence(pages, sequence.next_position)


def page_ids(sequence: PagedSequence) -> np.ndarray:
    return np.array([page.page_id for page in sequence.pages], np.int32)
