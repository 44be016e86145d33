"""A second real model, Gemma 3: windows, two rotations, SentencePiece, and four quantisations in one file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.llama_cpp_peer import LlamaCppPeer, PeerOptions
from layerscale_backend_cpu.backend import CpuBackend
from layerscale_core.conformance import PageBook, Span
from layerscale_core.conformance.executors import kv_layout
from layerscale_core.formats.gguf import GgufModelFile
from layerscale_core.forward import make_executor
from layerscale_core.specs import BackendOptions, Executor, KVLayout, KVType, Tokenizer
from tests.core.tokenizers.nasty_strings import NASTY_STRINGS
from tests.oracle.plain_gemma3 import PlainGemma3
from tests.oracle.predictions import CORPUS, NUM_TOP, Predictions, deviation
from tests.support.exact_cpu import exact_cpu

pytestmark = [pytest.mark.model, pytest.mark.xdist_group("gemma3"), pytest.mark.timeout(600)]

TEXT_LEN = 640
"""Tokens: a quarter more than a window."""
POSITIONS = np.arange(7, TEXT_LEN, 8)
"""Those that are compared: the head has 262,144 rows."""


@pytest.fixture(scope="module")
def model_file(gemma_model_path: Path) -> Iterator[GgufModelFile]:
    file = GgufModelFile(gemma_model_path)
    yield file
    file.close()


@pytest.fixture(scope="module")
def tokenizer(model_file: GgufModelFile) -> Tokenizer:
    return model_file.make_tokenizer()


@pytest.fixture(scope="module")
def text(tokenizer: Tokenizer) -> list[int]:
    """Prose and code, one after the other."""
    token_ids = tokenizer.encode("\n\n".join([CORPUS[4], CORPUS[2]]))[:TEXT_LEN]
    assert len(token_ids) == TEXT_LEN
    return token_ids


@pytest.fixture(scope="module")
def peer(gemma_model_path: Path) -> Iterator[LlamaCppPeer]:
    """llama.cpp with one thread, as for the other model."""
    pytest.importorskip("xllamacpp")
    with LlamaCppPeer(PeerOptions(gemma_model_path, context_len=1024, num_threads=1)) as peer:
        yield peer


@pytest.fixture(scope="module")
def truth(gemma_model_path: Path, text: list[int]) -> Predictions:
    plain = PlainGemma3(gemma_model_path)
    hidden = plain.hidden(text)[POSITIONS]
    return Predictions.concatenate(Predictions.from_logits(plain.logits(part)) for part in np.array_split(hidden, 4))


@pytest.fixture(scope="module")
def layout(model_file: GgufModelFile) -> KVLayout:
    return kv_layout(model_file.spec, page_size=16, num_pages=3 * -(-TEXT_LEN // 16))


@pytest.fixture(scope="module")
def executor(model_file: GgufModelFile, layout: KVLayout) -> Iterator[Executor]:
    executor = make_executor(CpuBackend().load(BackendOptions()), model_file.spec, model_file.weights, layout)
    yield executor
    executor.close()


def logits_at_positions(executor: Executor, layout: KVLayout, text: Sequence[int], step: int) -> Iterator[NDArray]:
    """The logits of the compared positions, chunk by chunk."""
    book = PageBook(layout)
    sequence = book.sequence()
    for start in range(0, len(text), step):
        chunk = text[start : start + step]
        wanted = POSITIONS[np.isin(POSITIONS, range(start, start + len(chunk)))] - start
        yield executor.step(book.batch([Span(sequence, chunk)], wanted=wanted.tolist())).copy()


def predictions_of(executor: Executor, layout: KVLayout, text: Sequence[int]) -> Predictions:
    return Predictions.concatenate(map(Predictions.from_logits, logits_at_positions(executor, layout, text, 128)))


def test_deviates_from_the_truth_no_more_than_llama_cpp(
    executor: Executor, layout: KVLayout, text: list[int], truth: Predictions, peer: LlamaCppPeer
) -> None:
    rows = np.array([peer.next_token_logprobs(text[: position + 1], NUM_TOP) for position in POSITIONS])
    theirs = deviation(Predictions(rows[:, :, 0].astype(np.int64), rows[:, :, 1]), truth)
    ours = deviation(predictions_of(executor, layout, text), truth)
    print(f"deviation from the truth over {len(truth)} positions: ours {ours}, llama.cpp's {theirs}")
    assert ours.mean_logprob_error <= theirs.mean_logprob_error
    assert ours.top1_agreement >= theirs.top1_agreement


def test_is_the_same_however_it_is_cut(executor: Executor, layout: KVLayout, text: list[int]) -> None:
    whole = np.concatenate([*logits_at_positions(executor, layout, text, TEXT_LEN)])
    cut = np.concatenate([*logits_at_positions(executor, layout, text, 37)])
    np.testing.assert_array_equal(whole, cut)


@pytest.mark.parametrize(("kv_type", "most"), [(KVType.INT8, 0.05), (KVType.INT4, 0.5)])
def test_a_quantised_cache_stays_close(
    kv_type: KVType, most: float, model_file: GgufModelFile, text: list[int], truth: Predictions
) -> None:
    layout = kv_layout(model_file.spec, page_size=16, num_pages=60, kv_type=kv_type)
    executor = make_executor(exact_cpu(), model_file.spec, model_file.weights, layout)
    ours = deviation(predictions_of(executor, layout, text), truth)
    executor.close()
    print(f"deviation of {kv_type} from the truth: {ours}")
    assert ours.mean_logprob_error <= most


def test_tokenizes_as_llama_cpp_does(tokenizer: Tokenizer, peer: LlamaCppPeer) -> None:
    for nasty in (*NASTY_STRINGS, *CORPUS):
        for parse_special in (False, True):
            theirs = peer.tokenize(nasty, parse_special=parse_special)
            assert tokenizer.encode(nasty, parse_special=parse_special) == theirs, repr(nasty[:80])


def test_its_numbers_are_those_of_the_model(model_file: GgufModelFile) -> None:
    spec = model_file.spec
    assert (spec.num_parameters, spec.max_context_len, spec.vocab_size) == (268_098_176, 32_768, 262_144)
    assert [layer.attention.window for layer in spec.layers[:7]] == [512, 512, 512, 512, 512, None, 512]
