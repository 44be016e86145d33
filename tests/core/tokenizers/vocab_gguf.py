"""Small vocabularies of both kinds, and the smallest GGUF that llama.cpp loads around one."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import gguf
import numpy as np
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

from layerscale_core.tokenizers.vocabulary import TokenKind
from tests.support.tiny_gguf import add_field

HIDDEN = 32
CONTROL_TOKENS = ("<s>", "</s>", "<|im_start|>", "<|im_end|>")
USER_DEFINED_TOKENS = ("[INST]", "    ")

Metadata = dict[str, object]


def byte_level_metadata(texts: Sequence[str], *, vocab_size: int = 3000) -> Metadata:
    """A byte-level vocabulary trained without cutting text into words, so that its tokens show where words end."""
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, initial_alphabet=alphabet, show_progress=False)
    tokens, merges = _train(trained, texts, trainer)
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.merges": merges,
        **_with_special_tokens([(token, TokenKind.NORMAL) for token in tokens]),
    }


def sentencepiece_metadata(texts: Sequence[str], *, vocab_size: int = 1500) -> Metadata:
    """A SentencePiece vocabulary: unknown, control and byte tokens, then pieces with falling scores."""
    trained = Tokenizer(models.BPE())
    trained.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, limit_alphabet=300, show_progress=False)
    pieces, _ = _train(trained, texts, trainer)
    pieces.sort(key=lambda piece: len(piece) == 1)  # as SentencePiece orders them: joined pieces, then characters
    leading = [("<unk>", TokenKind.UNKNOWN), *((f"<0x{byte:02X}>", TokenKind.BYTE) for byte in range(256))]
    fields = _with_special_tokens([*leading, *((piece, TokenKind.NORMAL) for piece in pieces)])
    num_special = len(CONTROL_TOKENS) + len(USER_DEFINED_TOKENS)
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.scores": [0.0] * len(leading) + [-float(i) for i in range(len(pieces))] + [0.0] * num_special,
        "tokenizer.ggml.unknown_token_id": 0,
        **fields,
    }


def write_vocab_gguf(path: Path, metadata: Mapping[str, object]) -> Path:
    """Write a llama of one layer of zeros, of no use but its tokenizer; return its path."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(256)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(1)
    writer.add_feed_forward_length(HIDDEN)
    writer.add_head_count(1)
    writer.add_head_count_kv(1)
    writer.add_layer_norm_rms_eps(1e-5)
    for key, value in metadata.items():
        add_field(writer, key, value)
    tokens = metadata["tokenizer.ggml.tokens"]
    assert isinstance(tokens, list)
    for name, shape in {
        "token_embd": (len(tokens), HIDDEN),
        "output_norm": (HIDDEN,),
        "blk.0.attn_norm": (HIDDEN,),
        "blk.0.ffn_norm": (HIDDEN,),
        **{f"blk.0.{part}": (HIDDEN, HIDDEN) for part in ("attn_q", "attn_k", "attn_v", "attn_output")},
        **{f"blk.0.{part}": (HIDDEN, HIDDEN) for part in ("ffn_gate", "ffn_up", "ffn_down")},
    }.items():
        writer.add_tensor(f"{name}.weight", np.zeros(shape, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _train(untrained: Tokenizer, texts: Sequence[str], trainer: trainers.BpeTrainer) -> tuple[list[str], list[str]]:
    """Tokens in order of their ids, and merges; NUL left out, where GGUF strings end for llama.cpp."""
    untrained.train_from_iterator([text.replace("\0", "") for text in texts], trainer)
    model = json.loads(untrained.to_str())["model"]
    return sorted(model["vocab"], key=model["vocab"].get), [" ".join(pair) for pair in model["merges"]]


def _with_special_tokens(tokens: Sequence[tuple[str, TokenKind]]) -> Metadata:
    special = [
        *((text, TokenKind.CONTROL) for text in CONTROL_TOKENS),
        *((text, TokenKind.USER_DEFINED) for text in USER_DEFINED_TOKENS),
    ]
    texts = [text for text, _ in (*tokens, *special)]
    return {
        "tokenizer.ggml.tokens": texts,
        "tokenizer.ggml.token_type": [int(kind) for _, kind in (*tokens, *special)],
        "tokenizer.ggml.bos_token_id": texts.index("<s>"),
        "tokenizer.ggml.eos_token_id": texts.index("</s>"),
    }
