"""The header of a large GGUF model, as its download would begin: every key and tensor, and no data."""

from __future__ import annotations

from pathlib import Path

from layerscale_core.formats.gguf.ggml_types import GGML_TYPES
from tests.support.raw_gguf import ARRAY, F32, I32, STRING, U32, array, entry, gguf_bytes, tensor, text, u32

FLOAT_TYPE = 0
TYPE_IDS = {ggml_type.name: type_id for type_id, ggml_type in GGML_TYPES.items()}
F32_500000 = bytes.fromhex("0024f448")
F32_1E5 = bytes.fromhex("acc52737")


def write_llama_header(
    path: Path,
    *,
    layers: int = 80,
    hidden: int = 8192,
    heads: int = 64,
    kv_heads: int = 8,
    intermediate: int = 28_672,
    context: int = 131_072,
    vocab: int = 128_256,
    merges: int = 280_147,
    encoding: str = "Q4_K",
) -> Path:
    """Write the header of a Llama model (the defaults are those of Llama 3.1 70B) and return its path."""
    head_dim = hidden // heads
    rows = _Table(TYPE_IDS[encoding])
    rows.add("token_embd.weight", hidden, vocab)
    rows.add("output_norm.weight", hidden)
    rows.add("output.weight", hidden, vocab)
    rows.add("rope_freqs.weight", head_dim // 2)
    for layer in range(layers):
        block = f"blk.{layer}"
        rows.add(f"{block}.attn_norm.weight", hidden)
        rows.add(f"{block}.ffn_norm.weight", hidden)
        rows.add(f"{block}.attn_q.weight", hidden, heads * head_dim)
        rows.add(f"{block}.attn_k.weight", hidden, kv_heads * head_dim)
        rows.add(f"{block}.attn_v.weight", hidden, kv_heads * head_dim)
        rows.add(f"{block}.attn_output.weight", heads * head_dim, hidden)
        rows.add(f"{block}.ffn_gate.weight", hidden, intermediate)
        rows.add(f"{block}.ffn_up.weight", hidden, intermediate)
        rows.add(f"{block}.ffn_down.weight", intermediate, hidden)
    numbers = {
        "context_length": context,
        "embedding_length": hidden,
        "block_count": layers,
        "feed_forward_length": intermediate,
        "attention.head_count": heads,
        "attention.head_count_kv": kv_heads,
    }
    entries = [
        entry("general.architecture", STRING, text("llama")),
        *(entry(f"llama.{key}", U32, u32(value)) for key, value in numbers.items()),
        entry("llama.attention.layer_norm_rms_epsilon", F32, F32_1E5),
        entry("llama.rope.freq_base", F32, F32_500000),
        entry("tokenizer.ggml.model", STRING, text("gpt2")),
        entry("tokenizer.ggml.tokens", ARRAY, _texts(vocab)),
        entry("tokenizer.ggml.token_type", ARRAY, array(I32, vocab, u32(1) * vocab)),
        entry("tokenizer.ggml.merges", ARRAY, _texts(merges)),
    ]
    path.write_bytes(gguf_bytes(entries, rows.rows))
    return path


class _Table:
    """A tensor table whose tensors follow each other without data behind them."""

    def __init__(self, matrix_type: int) -> None:
        self.rows: list[bytes] = []
        self._matrix_type = matrix_type
        self._offset = 0

    def add(self, name: str, cols: int, rows: int | None = None) -> None:
        type_id = FLOAT_TYPE if rows is None else self._matrix_type
        stored = GGML_TYPES[type_id]
        self.rows.append(tensor(name, (cols,) if rows is None else (cols, rows), type_id=type_id, offset=self._offset))
        self._offset += -(-cols * (rows or 1) // stored.block_size * stored.block_bytes // 32) * 32


def _texts(count: int) -> bytes:
    return array(STRING, count, b"".join(text(f"token {index}") for index in range(count)))
