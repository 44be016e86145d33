"""Every kind of RoPE scaling computes what llama.cpp computes from the same file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.llama_cpp import llama_cpp_logprobs, reference_logprobs
from tests.support.tiny_gguf import write_tiny_llama

PROMPT_LEN = 200
DIVISORS = [1.0, 1.0, 1.0, 1.5, 2.0, 4.0, 8.0, 8.0]
LONGROPE = {"rope_factors_short.weight": [1.25] * 8, "rope_factors_long.weight": DIVISORS}

CASES: dict[str, dict[str, Any]] = {
    "none": {},
    "another base": {"metadata": {"llama.rope.freq_base": 500_000.0}},
    "wide heads": {"head_dim": 32},
    "linear": {"rope_scaling": {"type": "linear", "factor": 4.0}},
    "linear by its old name": {"metadata": {"llama.rope.scale_linear": 2.0}},
    "linear with an attention factor": {"rope_scaling": {"type": "linear", "factor": 2.0, "attn_factor": 1.3}},
    "divisors": {"vectors": {"rope_freqs.weight": DIVISORS}},
    "yarn": {"rope_scaling": {"type": "yarn", "factor": 4.0, "original_context_length": 128}},
    "yarn without an original context": {"rope_scaling": {"type": "yarn", "factor": 8.0}},
    "yarn with an attention factor and divisors": {
        "rope_scaling": {"type": "yarn", "factor": 4.0, "original_context_length": 64, "attn_factor": 0.7},
        "vectors": {"rope_freqs.weight": DIVISORS},
    },
    "longrope beyond its original context": {
        "rope_scaling": {"type": "longrope", "original_context_length": 64, "attn_factor": 1.2},
        "vectors": LONGROPE,
    },
    "longrope within its original context": {
        "rope_scaling": {"type": "longrope", "original_context_length": 512, "attn_factor": 1.2},
        "vectors": LONGROPE,
    },
}


@pytest.mark.parametrize("case", CASES)
def test_predicts_the_next_token_as_llama_cpp_does(case: str, tmp_path: Path) -> None:
    path = write_tiny_llama(tmp_path / "tiny.gguf", context=512, **CASES[case])
    token_ids = np.random.default_rng(0).integers(3, 300, PROMPT_LEN).tolist()
    theirs = llama_cpp_logprobs(path, token_ids)
    ours = reference_logprobs(path, token_ids)
    # llama.cpp rounds keys and values to 16 bits; without the scaling of a file the mean difference exceeds 1.
    assert np.mean([abs(ours[token_id] - logprob) for token_id, logprob in theirs.items()]) < 0.02
