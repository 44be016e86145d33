"""Folders that ``transformers`` saves compute what ``transformers`` computes, for every family."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from layerscale_core.allocator import CountingAllocator
from layerscale_core.conformance import PageBook, Span
from layerscale_core.conformance.executors import kv_layout, logits_in_chunks
from layerscale_core.formats import GgufFormat, SafetensorsFormat, open_model
from layerscale_core.formats.safetensors.config import read_config, read_numbers
from layerscale_core.forward import KernelExecutor
from layerscale_core.models.families import BY_HUGGINGFACE
from layerscale_core.models.spec import weight_shapes
from layerscale_core.reference import ReferenceKernels
from layerscale_core.specs import KVLayout
from tests.support.tiny_checkpoints import FAMILIES, save_tiny_checkpoint
from tests.support.tiny_folder import write_json
from tests.support.to_gguf import convert_to_gguf

pytestmark = pytest.mark.xdist_group("transformers")

PROMPT_LEN = 100
"""Tokens: beyond every window and every original context here."""

MAX_LOGPROB_DIFFERENCE = 3e-4
"""Two float32 computations in different orders, seven layers deep, on log-probabilities down to -20."""


@dataclass(frozen=True)
class Comparison:
    """One family's executor, and what transformers says of a prompt: log-probabilities [num_tokens, vocab_size]."""

    executor: KernelExecutor
    kv: KVLayout
    prompt: list[int]
    truth: NDArray[np.float32]
    theirs: Any

    def check(self, logits: NDArray[np.float32], first: int = 0) -> None:
        """Compare the logits of consecutive tokens of the prompt."""
        ours = _logprobs(logits)
        theirs = self.truth[first : first + len(ours)]
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=MAX_LOGPROB_DIFFERENCE)
        np.testing.assert_array_equal(ours.argmax(axis=-1), theirs.argmax(axis=-1))


@pytest.fixture(scope="module", params=FAMILIES)
def comparison(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Comparison]:
    import torch  # noqa: PLC0415

    folder = tmp_path_factory.mktemp("checkpoints") / "tiny"
    theirs = save_tiny_checkpoint(folder, request.param)
    file = open_model(folder, [SafetensorsFormat()])
    kv = kv_layout(file.spec, page_size=16)
    kernels = ReferenceKernels(CountingAllocator(2**30, "the test"), kv_dtype=np.float32)
    executor = KernelExecutor(kernels, file.spec, file.weights, kv)
    prompt = np.random.default_rng(0).integers(3, file.spec.vocab_size, PROMPT_LEN).tolist()
    with torch.no_grad():
        truth = theirs(torch.tensor([prompt])).logits[0].numpy()
    yield Comparison(executor, kv, prompt, _logprobs(truth), theirs)
    executor.close()
    file.close()


def test_every_model_type_has_a_checkpoint_here() -> None:
    tested = {model_type for model_type, _ in FAMILIES.values()}
    beside_a_pictures_encoder = {"gemma3", "llama4"}
    assert tested == BY_HUGGINGFACE.keys() - beside_a_pictures_encoder


def test_prefill(comparison: Comparison) -> None:
    comparison.check(logits_in_chunks(comparison.executor, comparison.kv, [comparison.prompt]))


def test_decode(comparison: Comparison) -> None:
    chunks = [comparison.prompt[:90], *([token] for token in comparison.prompt[90:])]
    comparison.check(logits_in_chunks(comparison.executor, comparison.kv, chunks))


def test_chunks(comparison: Comparison) -> None:
    chunks = [comparison.prompt[:7], comparison.prompt[7:40], comparison.prompt[40:]]
    comparison.check(logits_in_chunks(comparison.executor, comparison.kv, chunks))


def test_among_others_in_a_batch(comparison: Comparison) -> None:
    book = PageBook(comparison.kv)
    sequences = [book.sequence() for _ in range(3)]
    prompt = comparison.prompt
    spans = [Span(sequences[0], prompt[:50], True), Span(sequences[1], prompt[:9]), Span(sequences[2], prompt[:80])]
    comparison.check(comparison.executor.step(book.batch(spans)).copy()[:50])
    spans = [Span(sequences[1], prompt[9:11]), Span(sequences[0], prompt[50:], True)]
    comparison.check(comparison.executor.step(book.batch(spans)).copy()[1:], first=50)


CONVERTED = {
    *("llama", "llama with a tied head", "mixtral", "granite", "qwen2", "qwen3"),
    *("gemma", "gemma3_text", "phi3", "glm4"),
}
"""Checkpoints that GGUF has keys for, or leaves to the family, in every number."""


def test_converted_to_gguf(comparison: Comparison, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    if request.node.callspec.params["comparison"] not in CONVERTED:
        pytest.skip("its GGUF files are compared with llama.cpp")
    file = open_model(convert_to_gguf(comparison.theirs, tmp_path / "tiny.gguf"), [GgufFormat()])
    kernels = ReferenceKernels(CountingAllocator(2**30, "the test"), kv_dtype=np.float32)
    executor = KernelExecutor(kernels, file.spec, file.weights, comparison.kv)
    comparison.check(logits_in_chunks(executor, comparison.kv, [comparison.prompt]))
    executor.close()
    file.close()


def test_what_gemma_3_files_leave_out_is_what_transformers_puts_in(tmp_path: Path) -> None:
    from transformers import AutoConfig  # noqa: PLC0415

    inner = {"hidden_size": 2560, "num_hidden_layers": 34, "rope_scaling": {"factor": 8.0, "rope_type": "linear"}}
    write_json(tmp_path / "config.json", {"model_type": "gemma3", "text_config": {**inner, "sliding_window": 1024}})
    ours = read_numbers(*read_config(tmp_path))
    theirs = AutoConfig.for_model("gemma3_text", **inner)
    assert (ours.vocab_size, ours.hidden_size, ours.num_layers) == (theirs.vocab_size, 2560, 34)
    assert (ours.num_heads, ours.num_kv_heads) == (theirs.num_attention_heads, theirs.num_key_value_heads)
    assert (ours.head_dim, ours.intermediate_size) == (theirs.head_dim, theirs.intermediate_size)
    assert (ours.norm_eps, ours.max_context_len) == (theirs.rms_norm_eps, theirs.max_position_embeddings)
    assert ours.scale == theirs.query_pre_attn_scalar**-0.5
    assert ours.tied_output
    assert (ours.rope.inv_freq[0], ours.window) == (1 / 8, 1024)
    assert ours.local_rope is not None
    second = {"full_attention": 8 * ours.rope.inv_freq[1], "sliding_attention": ours.local_rope.inv_freq[1]}
    for kind, frequency in second.items():
        np.testing.assert_allclose(frequency ** (-ours.head_dim / 2), theirs.rope_parameters[kind]["rope_theta"])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_weights_are_read_exactly(dtype: str, tmp_path: Path) -> None:
    theirs = save_tiny_checkpoint(tmp_path / "tiny", "gemma3_text", dtype=dtype)
    file = open_model(tmp_path / "tiny", [SafetensorsFormat()])
    layer = theirs.model.layers[1]
    expected = {
        "embedding": theirs.model.embed_tokens.weight,
        "output_norm": theirs.model.norm.weight + 1,
        "layers.1.key": layer.self_attn.k_proj.weight,
        "layers.1.key_norm": layer.self_attn.k_norm.weight + 1,
        "layers.1.attention_post_norm": layer.post_attention_layernorm.weight + 1,
        "layers.1.mlp_norm": layer.pre_feedforward_layernorm.weight + 1,
    }
    for name, weight in expected.items():
        weights = file.weights
        ours = weights.vector(name) if weight.ndim == 1 else weights.matrix(name).dequantize()
        np.testing.assert_array_equal(ours, weight.detach().numpy())
    file.close()


def test_a_model_in_several_files_is_the_same(tmp_path: Path) -> None:
    save_tiny_checkpoint(tmp_path / "one", "qwen3_moe")
    save_tiny_checkpoint(tmp_path / "many", "qwen3_moe", max_shard_size="60KB")
    assert len(list((tmp_path / "many").glob("*.safetensors"))) > 3
    one, many = (open_model(tmp_path / name, [SafetensorsFormat()]) for name in ("one", "many"))
    assert many.spec == one.spec
    for name, shape in weight_shapes(one.spec).items():
        read = [m.weights.matrix(name).dequantize() if len(shape) == 2 else m.weights.vector(name) for m in (one, many)]
        np.testing.assert_array_equal(*read)
    files = [*(tmp_path / "many").glob("*.safetensors")]
    assert many.size_bytes == sum(path.stat().st_size for path in files)
    one.close()
    many.close()


def _logprobs(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    return logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)
