"""GGUF files of every family compute what llama.cpp computes from them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from layerscale_core.errors import ModelFileError, UnsupportedModelError
from layerscale_core.formats import GgufFormat, open_model
from layerscale_core.models import Activation, ModelSpec
from layerscale_core.models.families import BY_GGUF
from tests.support.llama_cpp import llama_cpp_logprobs, reference_logprobs
from tests.support.tiny_families import FAMILIES, write_tiny_family

PROMPT_LEN = 120
"""Tokens: five times the windows."""


def describe(path: Path) -> ModelSpec:
    return open_model(path, [GgufFormat()]).spec


def test_every_architecture_has_a_file_here() -> None:
    assert {architecture for architecture, *_ in FAMILIES.values()} == BY_GGUF.keys()


@pytest.mark.parametrize("family", FAMILIES)
def test_predicts_the_next_token_as_llama_cpp_does(family: str, tmp_path: Path) -> None:
    path = write_tiny_family(tmp_path / "tiny.gguf", family)
    token_ids = np.random.default_rng(1).integers(3, 300, PROMPT_LEN).tolist()
    theirs = llama_cpp_logprobs(path, token_ids)
    ours = reference_logprobs(path, token_ids)
    # llama.cpp rounds keys and values to 16 bits, and looks GELU up in a table of as many.
    differences = [abs(ours[token_id] - logprob) for token_id, logprob in theirs.items()]
    assert np.mean(differences) < 0.02
    assert max(theirs, key=theirs.__getitem__) == ours.argmax()


def test_gemma_3_is_described_as_it_is(tmp_path: Path) -> None:
    spec = describe(write_tiny_family(tmp_path / "tiny.gguf", "gemma3"))
    windows = [layer.attention.window for layer in spec.layers]
    assert windows == [24, 24, 24, 24, 24, None]
    bases = [layer.attention.rope.inv_freq[1] ** -16 for layer in spec.layers]
    np.testing.assert_allclose(bases, [1e4] * 5 + [1e6])
    assert all(layer.attention.has_qk_norm and layer.has_post_norms for layer in spec.layers)
    assert spec.layers[0].mlp.activation is Activation.GELU_TANH
    assert spec.embedding_scale == 128**0.5
    assert spec.tied_output


def test_a_stretched_context_leaves_the_windows_alone(tmp_path: Path) -> None:
    spec = describe(write_tiny_family(tmp_path / "tiny.gguf", "gemma3 with a stretched context"))
    first = [layer.attention.rope.inv_freq[0] for layer in spec.layers]
    assert first == [1, 1, 1, 1, 1, 0.125]


@pytest.mark.parametrize(("pattern", "windowed"), [(2, [0, 2, 4]), ([True, True, False] * 2, [0, 1, 3, 4])])
def test_a_pattern_says_which_layers_are_windowed(pattern: object, windowed: list[int], tmp_path: Path) -> None:
    metadata = {"gemma3.attention.sliding_window_pattern": pattern}
    spec = describe(write_tiny_family(tmp_path / "tiny.gguf", "gemma3", metadata=metadata))
    assert [index for index, layer in enumerate(spec.layers) if layer.attention.window] == windowed


def test_llama_4_is_described_as_it_is(tmp_path: Path) -> None:
    spec = describe(write_tiny_family(tmp_path / "tiny.gguf", "llama4"))
    attentions = [layer.attention for layer in spec.layers]
    assert [attention.chunk for attention in attentions] == [8192, 8192, 8192, None, 8192, 8192]
    assert [attention.rope.rotary_dim for attention in attentions] == [32, 32, 32, 0, 32, 32]
    assert [attention.has_qk_norm for attention in attentions] == [True, True, True, False, True, True]
    assert [attention.temperature is not None for attention in attentions] == [False, False, False, True, False, False]
    with pytest.raises(UnsupportedModelError, match="without chunks"):
        describe(write_tiny_family(tmp_path / "other.gguf", "llama4", metadata={"llama4.attention.sliding_window": 0}))


def test_files_of_gemma_2_may_leave_its_numbers_out(tmp_path: Path) -> None:
    keys = ("attention.sliding_window", "attn_logit_softcapping", "final_logit_softcapping")
    metadata = dict.fromkeys((f"gemma2.{key}" for key in keys), None)
    spec = describe(write_tiny_family(tmp_path / "tiny.gguf", "gemma2", metadata=metadata))
    assert [layer.attention.window for layer in spec.layers] == [4096, None] * 3
    assert (spec.layers[0].attention.softcap, spec.logit_softcap) == (50, 30)


def test_more_experts_than_there_can_be_are_refused_before_they_are_counted(tmp_path: Path) -> None:
    metadata = {"llama.expert_count": 4096, "llama.block_count": 4096}
    path = write_tiny_family(tmp_path / "tiny.gguf", "mixtral", metadata=metadata)
    with pytest.raises(ModelFileError, match="4096 experts in each of 4096 layers make no sense"):
        describe(path)


def test_experts_are_weighed_as_their_family_does_or_refused(tmp_path: Path) -> None:
    path = write_tiny_family(tmp_path / "tiny.gguf", "qwen3moe", metadata={"qwen3moe.expert_weights_scale": 2.0})
    with pytest.raises(UnsupportedModelError, match="weighed in another way than their family"):
        describe(path)
