"""From a llama file's metadata to the description of its model, and the metadata that makes no sense."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from layerscale_core.errors import LayerScaleError, ModelFileError, UnsupportedModelError
from layerscale_core.formats import GgufFormat, open_model
from layerscale_core.models import AttentionSpec, ModelSpec
from layerscale_core.models.spec import weight_shapes
from tests.support.tiny_gguf import write_tiny_llama

NAN, INF = math.nan, math.inf


@pytest.fixture
def write(tmp_path: Path) -> Any:
    """Write the smallest llama with some of its arguments changed."""

    def write_with(**changes: Any) -> Path:
        return write_tiny_llama(tmp_path / "tiny.gguf", **{"layers": 1, **changes})

    return write_with


def describe(path: Path) -> ModelSpec:
    return open_model(path, [GgufFormat()]).spec


def attention(path: Path) -> AttentionSpec:
    return describe(path).layers[0].attention


def test_describes_the_model(write: Any) -> None:
    spec = describe(write(layers=3, hidden=96, heads=6, kv_heads=2, intermediate=160, context=2048))
    assert (spec.architecture, spec.hidden_size, spec.max_context_len, len(spec.layers)) == ("llama", 96, 2048, 3)
    assert spec.norm_eps == pytest.approx(1e-5)
    layer = spec.layers[0]
    assert (layer.attention.num_heads, layer.attention.num_kv_heads, layer.attention.head_dim) == (6, 2, 16)
    assert layer.attention.scale == 16**-0.5
    assert layer.attention.rope.interleaved
    assert layer.mlp.intermediate_size == 160


@pytest.mark.parametrize("tied", [True, False])
def test_the_head_is_tied_when_the_file_has_none(write: Any, tied: bool) -> None:
    spec = describe(write(tied=tied))
    assert spec.tied_output == tied
    assert ("output" in weight_shapes(spec)) != tied
    assert spec.num_parameters == sum(math.prod(shape) for shape in weight_shapes(spec).values())


def test_without_key_value_heads_every_head_has_its_own(write: Any) -> None:
    spec = attention(write(heads=4, kv_heads=4, metadata={"llama.attention.head_count_kv": None}))
    assert spec.num_kv_heads == 4


def test_head_width_can_differ_from_the_share_of_the_model_width(write: Any) -> None:
    spec = attention(write(hidden=64, heads=4, head_dim=32, metadata={"llama.rope.dimension_count": None}))
    assert (spec.head_dim, spec.rope.rotary_dim) == (32, 32)
    assert spec.scale == 32**-0.5


def test_head_width_is_the_share_of_the_model_width_unless_the_file_says(write: Any) -> None:
    metadata = {"llama.attention.key_length": None, "llama.attention.value_length": None}
    assert attention(write(hidden=64, heads=4, metadata=metadata)).head_dim == 16


def test_heads_that_do_not_share_the_model_width_need_a_width_of_their_own(write: Any) -> None:
    path = write(hidden=64, heads=6, head_dim=8, metadata={"llama.attention.key_length": None})
    assert "6 heads do not divide the width 64" in str(error_of(path, ModelFileError, "llama.attention.head_count"))


# What each key may not be: the value (None: missing), what the line says, and the field it names where that is another.
METADATA = {
    "llama.block_count": [
        (None, "missing"),
        (0, "between 1 and 4096"),
        (2**32 - 1, "between 1 and 4096"),
        ("1", "expected a whole number, found text"),
        (1.0, "expected a whole number, found a number"),
        (True, "expected a whole number, found a boolean"),
        ([1], "expected a whole number, found an array of 1"),
        (2, "the tensor is missing", "blk.1.attn_norm.weight"),
    ],
    "llama.embedding_length": [
        (None, "missing"),
        (0, "between 1 and"),
        (2**32 - 1, "between 1 and"),
        (128, "the metadata asks for [322, 128]", "token_embd.weight"),
    ],
    "llama.attention.head_count": [
        (None, "missing"),
        (0, "between 1 and"),
        (6, "the metadata asks for [96, 64]", "blk.0.attn_q.weight"),
    ],
    "llama.attention.head_count_kv": [
        (0, "between 1 and 4"),
        (3, "does not divide"),
        (8, "between 1 and 4"),
        (1, "the metadata asks for [16, 64]", "blk.0.attn_k.weight"),
        ([2, 2], "found an array of 2"),
    ],
    "llama.attention.key_length": [(0, "between 1 and 16384"), (2**31, "between 1 and 16384")],
    "llama.feed_forward_length": [
        (None, "missing"),
        (0, "between 1 and"),
        (97, "the metadata asks for [97, 64]", "blk.0.ffn_gate.weight"),
    ],
    "llama.context_length": [(None, "missing"), (0, "between 1 and"), (2**32 - 1, "between 1 and")],
    "llama.attention.layer_norm_rms_epsilon": [
        (None, "missing"),
        (0.0, "above 0"),
        (-1e-5, "above 0"),
        (NAN, "found nan"),
        (INF, "found inf"),
        ("1e-5", "expected a number, found text"),
        (True, "expected a number, found a boolean"),
    ],
    "llama.rope.freq_base": [(0.0, "above 1"), (1.0, "above 1"), (NAN, "above 1"), (INF, "above 1")],
    "llama.rope.dimension_count": [(0, "between 1 and 16"), (17, "between 1 and 16"), (7, "must be even")],
    "llama.rope.scaling.type": [(3, "expected text")],
    "llama.rope.scaling.factor": [
        (0.0, "above 0"),
        (-2.0, "above 0"),
        (NAN, "above 0"),
        (INF, "above 0"),
        (1e30, "makes no sense"),
    ],
    "llama.rope.scaling.original_context_length": [(0, "between 1 and"), (1.5, "expected a whole number")],
    "llama.rope.scaling.attn_factor": [(0.0, "above 0"), (NAN, "above 0")],
    "tokenizer.ggml.tokens": [
        (None, "missing"),
        ("x", "expected an array"),
        (["a", "b"], "the metadata asks for [2, 64]", "token_embd.weight"),
    ],
    "tokenizer.chat_template": [(7, "expected text")],
    "split.count": [
        ("2", "expected a whole number"),
        (2, "it is one of 2 parts, which its name must say"),
        (2**31, "between 0 and 1000"),
    ],
    "llama.expert_count": [
        ("8", "expected a whole number"),
        (8, "missing", "llama.expert_used_count"),
        (5000, "between 0 and 4096"),
    ],
    "llama.attention.sliding_window": [("8", "expected a whole number")],
    "llama.attention.sliding_window_pattern": [
        (0, "between 1 and"),
        ([True, False], "expected 1 booleans"),
        ([1], "expected 1 booleans"),
    ],
    "llama.attn_logit_softcapping": [(0.0, "above 0")],
    "llama.final_logit_softcapping": [(NAN, "above 0")],
}


@pytest.mark.parametrize(
    ("key", "value", "says", "field"),
    [(key, value, says, *(field or [key])) for key, cases in METADATA.items() for value, says, *field in cases],
)
def test_names_the_field_that_makes_no_sense(write: Any, key: str, value: object, says: str, field: str) -> None:
    line = str(error_of(write(metadata={key: value}), ModelFileError, field))
    assert says in line
    assert "\n" not in line


@pytest.mark.parametrize(
    ("metadata", "says"),
    [
        ({"llama.rope.scaling.type": "dynamic"}, "RoPE scaling 'dynamic' is not supported; known: none, linear"),
        (
            {"llama.expert_count": 8, "llama.expert_used_count": 2, "llama.expert_gating_func": 2},
            "experts that are weighed in another way than their family's cannot",
        ),
        ({"llama.attention.value_length": 8}, "values of width 8 beside keys of width 16"),
    ],
)
def test_says_what_this_build_cannot_run(write: Any, metadata: Mapping[str, object], says: str) -> None:
    path = write(metadata=metadata)
    assert says in str(error_of(path, UnsupportedModelError))


def test_an_unknown_architecture_is_named_beside_the_known_ones(write: Any) -> None:
    path = write()
    path.write_bytes(path.read_bytes().replace(b"\x05\0\0\0\0\0\0\0llama", b"\x05\0\0\0\0\0\0\0grok\n", 1))
    line = "the architecture 'grok\\n' is not supported; known: gemma, gemma2, gemma3, glm4, granite, llama"
    assert line in str(error_of(path, UnsupportedModelError))


def test_a_tensor_that_has_no_place_in_the_model_is_not_ignored(write: Any) -> None:
    path = write(layers=2, metadata={"llama.block_count": 1})
    line = str(error_of(path, UnsupportedModelError))
    assert "'blk.1.attn_k.weight'" in line


def test_a_chat_template_that_is_not_text_is_refused_at_once(write: Any) -> None:
    path = write(chat_template="@@@@")
    path.write_bytes(path.read_bytes().replace(b"@@@@", b"\xff\xfe\xfd\xfc", 1))
    error_of(path, ModelFileError, "tokenizer.chat_template")


@pytest.mark.parametrize("factors", [[1.0] * 7, [0.0] * 8, [-1.0] * 8, [NAN] * 8, [INF] * 8])
def test_rope_divisors_that_make_no_sense_are_refused(write: Any, factors: list[float]) -> None:
    error_of(write(vectors={"rope_freqs.weight": factors}), ModelFileError, "rope_freqs.weight")


def test_longrope_without_its_divisors_is_refused(write: Any) -> None:
    scaling = {"type": "longrope", "original_context_length": 256}
    error_of(write(context=512, rope_scaling=scaling), ModelFileError, "rope_factors_long.weight")
    error_of(write(context=256, rope_scaling=scaling), ModelFileError, "rope_factors_short.weight")


def error_of(path: Path, kind: type[LayerScaleError], field: str | None = None) -> LayerScaleError:
    """The one error that opening the file raises."""
    with pytest.raises(kind) as caught:
        open_model(path, [GgufFormat()])
    assert caught.type is kind
    if field is not None:
        assert isinstance(caught.value, ModelFileError)
        assert caught.value.field == field
    return caught.value


def plain_frequencies(rotary_dim: int = 16, base: float = 10_000.0) -> np.ndarray:
    return np.array([base ** (-2 * pair / rotary_dim) for pair in range(rotary_dim // 2)])


def test_rope_turns_each_pair_at_its_frequency(write: Any) -> None:
    rope = attention(write()).rope
    assert rope.magnitude == 1
    np.testing.assert_allclose(rope.inv_freq, plain_frequencies(), rtol=1e-12)


def test_rope_can_leave_the_end_of_a_head_alone(write: Any) -> None:
    rope = attention(write(metadata={"llama.rope.dimension_count": 8, "llama.rope.freq_base": 500_000.0})).rope
    np.testing.assert_allclose(rope.inv_freq, plain_frequencies(8, 500_000.0), rtol=1e-12)


@pytest.mark.parametrize(
    ("scaling", "metadata", "factor", "context"),
    [
        ({"type": "linear", "factor": 4.0}, {}, 4, 2048),
        ({"factor": 4.0}, {}, 4, 2048),
        ({"type": "linear", "factor": 4.0, "original_context_length": 256}, {}, 4, 1024),
        ({"type": "none", "factor": 4.0}, {}, 1, 512),
        ({}, {"llama.rope.scale_linear": 2.0}, 2, 1024),
        ({"type": "linear"}, {}, 1, 512),
    ],
)
def test_linear_scaling_divides_all_frequencies(
    write: Any, scaling: dict[str, Any], metadata: dict[str, Any], factor: float, context: int
) -> None:
    path = write(context=512, rope_scaling=scaling, metadata=metadata)
    np.testing.assert_allclose(attention(path).rope.inv_freq, plain_frequencies() / factor, rtol=1e-12)
    assert describe(path).max_context_len == context


def test_divisors_apply_pair_by_pair_and_leave_the_context_alone(write: Any) -> None:
    divisors = [1, 1, 1, 1.5, 2, 4, 8, 8]
    path = write(context=512, vectors={"rope_freqs.weight": divisors})
    np.testing.assert_allclose(attention(path).rope.inv_freq, plain_frequencies() / divisors, rtol=1e-12)
    assert describe(path).max_context_len == 512


def yarn_frequency(pair: int, factor: float, context: int, beta_fast: float, beta_slow: float) -> float:
    """One pair's frequency by the paper's definition, for 16 rotated elements and base 10,000.

    The ends of the ramp are rounded outwards to whole pairs, as every implementation does.
    """
    first, last = (8 * math.log(context / (turns * 2 * math.pi), 10_000) for turns in (beta_fast, beta_slow))
    ramp = min(1, max(0, (pair - math.floor(first)) / (math.ceil(last) - math.floor(first))))
    frequency = 10_000 ** (-pair / 8)
    return (1 - ramp) * frequency + ramp * frequency / factor


@pytest.mark.parametrize("betas", [{}, {"yarn_beta_fast": 16.0, "yarn_beta_slow": 2.0}])
def test_yarn_divides_the_slow_pairs_and_sharpens_attention(write: Any, betas: dict[str, float]) -> None:
    scaling = {"type": "yarn", "factor": 4.0, "original_context_length": 4096, "attn_factor": 0.5, **betas}
    path = write(context=16384, rope_scaling=scaling)
    rope = attention(path).rope
    fast, slow = betas.get("yarn_beta_fast", 32.0), betas.get("yarn_beta_slow", 1.0)
    np.testing.assert_allclose(rope.inv_freq, [yarn_frequency(pair, 4, 4096, fast, slow) for pair in range(8)])
    assert rope.inv_freq[0] == 1
    assert rope.inv_freq[7] == pytest.approx(plain_frequencies()[7] / 4)
    assert rope.magnitude == pytest.approx(0.5 * (0.1 * math.log(4) + 1))
    assert describe(path).max_context_len == 16384


@pytest.mark.parametrize(("context", "divisor"), [(4096, 3.0), (512, 2.0)])
def test_longrope_takes_the_divisors_of_the_trained_context(write: Any, context: int, divisor: float) -> None:
    scaling = {"type": "longrope", "original_context_length": 512, "attn_factor": 1.25}
    factors = {"rope_factors_short.weight": [2.0] * 8, "rope_factors_long.weight": [3.0] * 8}
    path = write(context=context, rope_scaling=scaling, vectors=factors)
    rope = attention(path).rope
    np.testing.assert_allclose(rope.inv_freq, plain_frequencies() / divisor, rtol=1e-12)
    assert rope.magnitude == 1.25
    assert describe(path).max_context_len == context
