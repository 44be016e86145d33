"""Tiny random llama GGUF files, in every encoding, with a small but real byte-level BPE tokenizer.

The weights are random, yet the layers dominate the residual stream, so that logits vary with the whole context and
greedy text does not repeat one token.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType as GgmlType
from numpy.typing import NDArray

CHATML_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")

# In order of rank, with a plus for the space that GGUF writes between the two halves.
_MERGES = """
Ġ+t h+e i+n Ġ+a r+e o+n Ġt+he e+r Ġ+s a+t Ġ+w Ġ+o e+n Ġ+c i+t i+s a+n o+r e+s Ġ+b e+d Ġ+f in+g Ġ+p o+u Ġa+n a+l a+r
Ġt+o Ġ+m Ġo+f Ġ+in Ġ+d Ġ+h Ġan+d i+c l+e i+on o+m l+l en+t s+t v+e Ġ+re l+y e+t Ġ+is Ġ+on Ġb+e o+w Ġ+Ġ ĠĠ+ĠĠ Ċ+Ċ
=+= H+e He+ll Hell+o Ġw+or Ġwor+l Ġworl+d Ġ+1 à+¤ Ã+©
"""
MERGES = tuple(merge.replace("+", " ") for merge in _MERGES.split())

# Where the half-precision scale (and minimum) of a block stands, for the types that gguf cannot quantise itself, and
# the minimum that centres uniformly random codes on zero, in units of the scale.
_RANDOM_BLOCKS: dict[str, tuple[int, int | None, float]] = {
    "Q2_K": (80, 82, 1.5),
    "Q3_K": (108, None, 0.0),
    "Q4_K": (0, 2, 7.5),
    "Q5_K": (0, 2, 15.5),
    "Q6_K": (208, None, 0.0),
    "IQ2_XXS": (0, None, 0.0),
    "IQ3_XXS": (0, None, 0.0),
    "IQ3_S": (0, None, 0.0),
    "IQ4_NL": (0, None, 0.0),
    "IQ4_XS": (0, None, 0.0),
}


def write_tiny_llama(
    path: Path,
    *,
    layers: int = 2,
    hidden: int = 64,
    heads: int = 4,
    kv_heads: int = 2,
    head_dim: int | None = None,
    intermediate: int = 96,
    context: int = 512,
    encoding: str = "F32",
    tied: bool = True,
    seed: int = 0,
    rope_scaling: Mapping[str, str | int | float] | None = None,
    vectors: Mapping[str, Sequence[float]] | None = None,
    chat_template: str | None = CHATML_TEMPLATE,
    metadata: Mapping[str, object] | None = None,
) -> Path:
    """Write a valid model of a few hundred thousand random weights and return its path.

    Args:
        hidden, intermediate: multiples of the encoding's block: 32, or 256 for the K types.
        head_dim: hidden / heads, unless the model's heads are wider or narrower.
        encoding: ggml type of every matrix, the embedding included; vectors are F32.
        rope_scaling: keys below ``llama.rope.scaling.``, e.g. ``{"type": "linear", "factor": 2.0}``.
        vectors: further tensors, by full name, e.g. ``rope_freqs.weight`` [head_dim / 2] as in Llama 3.
        metadata: keys to add or replace, by full name; None removes one.
    """
    rng = np.random.default_rng(seed)
    tokens = vocabulary()
    head_dim = head_dim or hidden // heads
    writer = gguf.GGUFWriter(path, "llama")
    fields: dict[str, object] = {
        "general.name": "tiny llama",
        "llama.vocab_size": len(tokens),
        "llama.context_length": context,
        "llama.embedding_length": hidden,
        "llama.block_count": layers,
        "llama.feed_forward_length": intermediate,
        "llama.attention.head_count": heads,
        "llama.attention.head_count_kv": kv_heads,
        "llama.attention.key_length": head_dim,
        "llama.attention.value_length": head_dim,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.rope.freq_base": 10000.0,
        "llama.rope.dimension_count": head_dim,
        **tokenizer_fields(),
        "tokenizer.chat_template": chat_template,
    }
    fields.update({f"llama.rope.scaling.{key}": value for key, value in (rope_scaling or {}).items()})
    fields.update(metadata or {})
    for key, value in fields.items():
        add_field(writer, key, value)

    def add_matrix(name: str, rows: int, cols: int, std: float) -> None:
        data = random_matrix(rng, encoding, rows, cols, std)
        writer.add_tensor(f"{name}.weight", data, raw_dtype=GgmlType[encoding])

    def add_norm(name: str) -> None:
        writer.add_tensor(f"{name}.weight", rng.uniform(0.8, 1.2, hidden).astype(np.float32))

    query_size, kv_size = heads * head_dim, kv_heads * head_dim
    add_matrix("token_embd", len(tokens), hidden, std=0.3)
    add_norm("output_norm")
    if not tied:
        add_matrix("output", len(tokens), hidden, std=0.3)
    for name, values in (vectors or {}).items():
        writer.add_tensor(name, np.asarray(values, dtype=np.float32))
    for layer in range(layers):
        block = f"blk.{layer}"
        add_norm(f"{block}.attn_norm")
        for name, rows in ("attn_q", query_size), ("attn_k", kv_size), ("attn_v", kv_size):
            add_matrix(f"{block}.{name}", rows, hidden, std=1.5 * hidden**-0.5)
        add_matrix(f"{block}.attn_output", hidden, query_size, std=1.5 * query_size**-0.5)
        add_norm(f"{block}.ffn_norm")
        for name in "ffn_gate", "ffn_up":
            add_matrix(f"{block}.{name}", intermediate, hidden, std=1.5 * hidden**-0.5)
        add_matrix(f"{block}.ffn_down", hidden, intermediate, std=1.5 * intermediate**-0.5)

    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def random_matrix(rng: np.random.Generator, encoding: str, rows: int, cols: int, std: float) -> NDArray[np.generic]:
    """Random weights of mean 0, as an encoding stores them: [rows, cols], or uint8 [rows, bytes of a row]."""
    if encoding not in _RANDOM_BLOCKS:
        weights = rng.normal(0, std, (rows, cols)).astype(np.float32)
        return gguf.quants.quantize(weights, GgmlType[encoding])
    blocks = random_blocks(rng, encoding, rows * cols // gguf.GGML_QUANT_SIZES[GgmlType[encoding]][0])
    return _rescaled(blocks, encoding, std).reshape(rows, -1)


def random_blocks(rng: np.random.Generator, encoding: str, num_blocks: int) -> NDArray[np.uint8]:
    """Blocks of a quantised encoding: every code and sub-scale random, block scales between 0.5 and 1.5.

    Returns:
        uint8 [num_blocks, bytes of a block].
    """
    block_size, block_bytes = gguf.GGML_QUANT_SIZES[GgmlType[encoding]]
    if encoding not in _RANDOM_BLOCKS:
        weights = rng.uniform(-8, 8, (num_blocks, block_size)).astype(np.float32)
        return gguf.quants.quantize(weights, GgmlType[encoding])
    blocks = rng.integers(0, 256, (num_blocks, block_bytes), dtype=np.uint8)
    scale_at, minimum_at, centre = _RANDOM_BLOCKS[encoding]
    scales = rng.uniform(0.5, 1.5, num_blocks)
    _put_halves(blocks, scale_at, scales)
    if minimum_at is not None:
        _put_halves(blocks, minimum_at, scales * centre)
    return blocks


def _rescaled(blocks: NDArray[np.uint8], encoding: str, std: float) -> NDArray[np.uint8]:
    """The blocks with their block scales multiplied so that the weights have the given standard deviation."""
    factor = std / gguf.quants.dequantize(blocks, GgmlType[encoding]).std()
    scale_at, minimum_at, _ = _RANDOM_BLOCKS[encoding]
    for at in (scale_at,) if minimum_at is None else (scale_at, minimum_at):
        _put_halves(blocks, at, blocks[:, at : at + 2].copy().view(np.float16)[:, 0] * factor)
    return blocks


def _put_halves(blocks: NDArray[np.uint8], at: int, values: NDArray[np.floating]) -> None:
    blocks[:, at : at + 2] = values.astype(np.float16)[:, None].view(np.uint8)


def tokenizer_fields() -> dict[str, Any]:
    """The metadata of a small byte-level tokenizer."""
    tokens = vocabulary()
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3 if token in SPECIAL_TOKENS else 1 for token in tokens],
        "tokenizer.ggml.merges": list(MERGES),
        "tokenizer.ggml.bos_token_id": tokens.index("<|im_start|>"),
        "tokenizer.ggml.eos_token_id": tokens.index("<|im_end|>"),
        "tokenizer.ggml.add_bos_token": False,
    }


def vocabulary() -> list[str]:
    """Special tokens, the 256 bytes in GPT-2's printable spelling, and what the merges make of them."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    spelling = {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(others)}
    tokens = [*SPECIAL_TOKENS, *(spelling[byte] for byte in range(256))]
    for merge in MERGES:
        left, right = merge.split(" ")
        assert left in tokens, merge
        assert right in tokens, merge
        tokens.append(left + right)
    return tokens


def add_field(writer: gguf.GGUFWriter, key: str, value: object) -> None:
    """Write a metadata field with the value type that its Python type says; None leaves it out."""
    match value:
        case None:
            pass
        case bool():
            writer.add_bool(key, value)
        case int():
            writer.add_uint32(key, value)
        case float():
            writer.add_float32(key, value)
        case str():
            writer.add_string(key, value)
        case list():
            writer.add_array(key, value)
        case _:
            raise TypeError(f"{key}: {type(value)}")
