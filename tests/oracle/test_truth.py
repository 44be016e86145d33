"""How close to the plain float32 computation the answers are, next to llama.cpp on the same file and texts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from layerscale_core.allocator import CountingAllocator
from layerscale_core.formats.gguf import GgufModelFile
from layerscale_core.forward import KernelExecutor
from layerscale_core.reference import ReferenceKernels
from layerscale_core.specs import KVLayout
from tests.oracle.conftest import all_logits
from tests.oracle.plain_llama import PlainLlama
from tests.oracle.predictions import Predictions, deviation
from tests.support.tiny_gguf import write_tiny_llama

MIN_POSITIONS = 2000
MAX_EXACT_DEVIATION = 0.001
MIN_EXACT_AGREEMENT = 0.998
MIN_AGREEMENT_WITH_PEER = 0.965
MAX_LOGPROB_DIFFERENCE_FROM_PEER = 0.06

ROUNDING = 1e-4
"""Between two float32 computations in different orders, on logits of magnitude 10."""

real_model = [pytest.mark.model, pytest.mark.xdist_group("oracle"), pytest.mark.timeout(900)]


@pytest.mark.parametrize("encoding", ["F32", "Q4_1", "Q8_0"])
def test_reference_kernels_are_the_plain_computation(encoding: str, tmp_path: Path) -> None:
    path = write_tiny_llama(tmp_path / "tiny.gguf", encoding=encoding)
    token_ids = np.random.default_rng(0).integers(0, 256, 300).tolist()
    plain = PlainLlama(path).logits(token_ids)
    file = GgufModelFile(path)
    attention = file.spec.layers[0].attention
    layout = KVLayout(32, 16, len(file.spec.layers), attention.num_kv_heads, attention.head_dim)
    kernels = ReferenceKernels(CountingAllocator(2**30, "host memory"), kv_dtype=np.float32)
    executor = KernelExecutor(kernels, file.spec, file.weights, layout)
    np.testing.assert_allclose(all_logits(executor, layout, token_ids), plain, atol=ROUNDING * np.abs(plain).max())
    executor.close()
    file.close()


class TestRealModel:
    pytestmark = real_model

    def test_deviates_from_the_truth_no_more_than_llama_cpp(
        self, truth: Predictions, our_predictions: Predictions, peer_predictions: Predictions
    ) -> None:
        ours, theirs = deviation(our_predictions, truth), deviation(peer_predictions, truth)
        print(f"deviation from the truth over {len(truth)} positions: ours {ours}, llama.cpp's {theirs}")
        assert len(truth) >= MIN_POSITIONS
        assert ours.mean_logprob_error <= theirs.mean_logprob_error
        assert ours.top1_agreement >= theirs.top1_agreement

    def test_loses_next_to_nothing_with_activations_of_16_bits(
        self, truth: Predictions, exact_predictions: Predictions
    ) -> None:
        exact = deviation(exact_predictions, truth)
        print(f"deviation from the truth with activations of 16 bits: {exact}")
        assert exact.mean_logprob_error <= MAX_EXACT_DEVIATION
        assert exact.top1_agreement >= MIN_EXACT_AGREEMENT

    def test_agrees_with_llama_cpp(self, our_predictions: Predictions, peer_predictions: Predictions) -> None:
        between = deviation(our_predictions, peer_predictions)
        print(f"difference from llama.cpp: {between}")
        assert between.top1_agreement >= MIN_AGREEMENT_WITH_PEER
        assert between.mean_logprob_error <= MAX_LOGPROB_DIFFERENCE_FROM_PEER
