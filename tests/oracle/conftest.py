"""The parties to the comparison, each asked once per session: the plain computation, llama.cpp, and the CPU backend."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.llama_cpp_peer import LlamaCppPeer, PeerOptions
from layerscale_backend_cpu.backend import CpuBackend
from layerscale_core.conformance import PageBook, Span
from layerscale_core.formats.gguf import GgufModelFile
from layerscale_core.forward import make_executor
from layerscale_core.specs import BackendOptions, Executor, KVLayout
from tests.oracle.plain_llama import PlainLlama
from tests.oracle.predictions import CORPUS, NUM_COMPARED, NUM_TOP, Predictions, predict
from tests.support.exact_cpu import exact_cpu

CHUNK_LEN = 128
"""Prompt tokens per step; with logits for each, so it bounds memory."""


@pytest.fixture(scope="session")
def peer(real_model_path: Path) -> Iterator[LlamaCppPeer]:
    """llama.cpp with one thread: several wait for each other by spinning, which stalls them on a busy machine."""
    if importlib.util.find_spec("xllamacpp") is None:
        pytest.skip("xllamacpp, which carries llama.cpp, is not installed")
    with LlamaCppPeer(PeerOptions(real_model_path, num_threads=1)) as peer:
        yield peer


@pytest.fixture(scope="session")
def texts(peer: LlamaCppPeer) -> list[list[int]]:
    """The corpus as llama.cpp tokenizes it."""
    return [peer.tokenize(text, parse_special=True) for text in CORPUS]


@pytest.fixture(scope="session")
def truth(real_model_path: Path, texts: list[list[int]]) -> Predictions:
    """Plain float32 on the dequantised weights."""
    return predict(PlainLlama(real_model_path).logits, texts)


@pytest.fixture(scope="session")
def peer_predictions(peer: LlamaCppPeer, texts: list[list[int]]) -> Predictions:
    """llama.cpp, asked for one prefix after the other; its prompt cache computes one token each."""
    prefixes = (ids[:length] for ids in texts for length in range(max(0, len(ids) - NUM_COMPARED) + 1, len(ids) + 1))
    rows = np.array([peer.next_token_logprobs(prefix, NUM_TOP) for prefix in prefixes])
    return Predictions(rows[:, :, 0].astype(np.int64), rows[:, :, 1])


@pytest.fixture(scope="session")
def model_file(real_model_path: Path) -> Iterator[GgufModelFile]:
    """The model, as the engine reads it."""
    file = GgufModelFile(real_model_path)
    yield file
    file.close()


@pytest.fixture(scope="session")
def layout(model_file: GgufModelFile) -> KVLayout:
    """A cache for a few sequences of the corpus' length."""
    attention = model_file.spec.layers[0].attention
    return KVLayout(
        num_pages=256,
        page_size=16,
        num_layers=len(model_file.spec.layers),
        num_kv_heads=attention.num_kv_heads,
        head_dim=attention.head_dim,
    )


@pytest.fixture(scope="session")
def executor(model_file: GgufModelFile, layout: KVLayout) -> Iterator[Executor]:
    """What serves on a CPU: the native executor where it was compiled."""
    device = CpuBackend().load(BackendOptions())
    executor = make_executor(device, model_file.spec, model_file.weights, layout)
    yield executor
    executor.close()


@pytest.fixture(scope="session")
def exact_predictions(model_file: GgufModelFile, layout: KVLayout, texts: list[list[int]]) -> Predictions:
    """The CPU backend's with activations of 16 bits."""
    executor = make_executor(exact_cpu(), model_file.spec, model_file.weights, layout)
    predictions = predict(lambda token_ids: all_logits(executor, layout, token_ids), texts)
    executor.close()
    return predictions


@pytest.fixture(scope="session")
def our_predictions(executor: Executor, layout: KVLayout, texts: list[list[int]]) -> Predictions:
    """The CPU backend's, as it serves."""
    return predict(lambda token_ids: all_logits(executor, layout, token_ids), texts)


def all_logits(executor: Executor, layout: KVLayout, token_ids: Sequence[int]) -> NDArray[np.float32]:
    """The logits of every position of a text, computed chunk by chunk: [num_tokens, vocab_size]."""
    book = PageBook(layout)
    sequence = book.sequence()
    chunks = [token_ids[start : start + CHUNK_LEN] for start in range(0, len(token_ids), CHUNK_LEN)]
    # Logits are the executor's until its next step, hence the copies.
    return np.concatenate(
        [executor.step(book.batch([Span(sequence, chunk, all_logits=True)])).copy() for chunk in chunks]
    )
