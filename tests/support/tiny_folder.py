"""Tiny models as folders of Hugging Face's libraries, written without them: a llama, and tokenizers of every kind."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file
from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers, processors, trainers
from tokenizers.models import BPE, Unigram

from layerscale_core.specs import ModelFile
from tests.oracle.predictions import CORPUS
from tests.support.tiny_gguf import CHATML_TEMPLATE, MERGES, SPECIAL_TOKENS, vocabulary

HIDDEN, HEADS, KV_HEADS, HEAD_DIM, INTERMEDIATE = 64, 4, 2, 16, 96
BYTE_TOKENS = tuple(f"<0x{byte:02X}>" for byte in range(256))
_SPM_DECODER = (decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse())


def write_tiny_folder(
    folder: Path,
    *,
    layers: int = 2,
    config: Mapping[str, object] | None = None,
    tokenizer: Tokenizer | None = None,
    tokenizer_config: Mapping[str, object] | None = None,
    generation_config: Mapping[str, object] | None = None,
) -> Path:
    """Write a valid folder with a random llama in F32 and return its path.

    Args:
        config: keys of ``config.json`` to add or replace.
        tokenizer_config: in place of one with a ChatML template.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = tokenizer or byte_level()
    vocab_size = tokenizer.get_vocab_size()
    save_file(_weights(layers, vocab_size), folder / "model.safetensors")
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "chat_template": CHATML_TEMPLATE}
    numbers = {
        "model_type": "llama",
        "vocab_size": vocab_size,
        "hidden_size": HIDDEN,
        "intermediate_size": INTERMEDIATE,
        "num_hidden_layers": layers,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "max_position_embeddings": 512,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": True,
        **(config or {}),
    }
    write_json(folder / "config.json", numbers)
    write_json(folder / "tokenizer_config.json", settings if tokenizer_config is None else tokenizer_config)
    if generation_config is not None:
        write_json(folder / "generation_config.json", generation_config)
    return folder


def read_weights(file: ModelFile) -> None:
    """Read every weight of a file, and close it."""
    try:
        for name in file.weights.names():
            read = file.weights.matrix if len(file.weights.shape(name)) == 2 else file.weights.vector
            read(name)
    finally:
        file.close()


def write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value))


def byte_level() -> Tokenizer:
    """The tokenizer of the tiny GGUF files, with their ids."""
    ids = {token: token_id for token_id, token in enumerate(vocabulary())}
    return byte_level_of(ids, [tuple(merge.split(" ")) for merge in MERGES], SPECIAL_TOKENS)


def byte_level_of(
    ids: Mapping[str, int], merges: Sequence[tuple[str, str]], special_tokens: Sequence[str]
) -> Tokenizer:
    """Byte-level BPE that takes digits one by one, as SmolLM does."""
    tokenizer = Tokenizer(BPE(dict(ids), list(merges)))
    digits, words = pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, words])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special_tokens])
    return tokenizer


def sentencepiece(style: str) -> Tokenizer:
    """BPE over pieces with ``▁`` for spaces and bytes for what is unknown.

    Args:
        style: ``prepend`` as Llama 2 has it, ``metaspace`` as Mistral, ``plain`` as Gemma.
    """
    tokenizer = _trained(style)
    description = json.loads(tokenizer.to_str())
    description["added_tokens"] = [token for token in description["added_tokens"] if token["id"] < 4]
    for token in description["added_tokens"]:
        token["special"] = token["content"] != "<tool>"
    return Tokenizer.from_str(json.dumps(description))


def unigram() -> Tokenizer:
    """Pieces with scores, and nothing for characters it has not seen."""
    tokenizer = Tokenizer(Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    trainer = trainers.UnigramTrainer(
        vocab_size=400, special_tokens=["<unk>", "<s>", "</s>"], unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def _trained(style: str) -> Tokenizer:
    tokenizer = Tokenizer(BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    strip = []
    match style:
        case "prepend":
            tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
            strip = [decoders.Strip(" ", 1, 0)]
        case "metaspace":
            tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
            strip = [decoders.Strip(" ", 1, 0)]
        case "plain":
            tokenizer.normalizer = normalizers.Replace(" ", "▁")
            tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(" "), "merged_with_previous")
    tokenizer.decoder = decoders.Sequence([*_SPM_DECODER, *strip])
    special = ["<unk>", "<s>", "</s>", "<tool>"]
    trainer = trainers.BpeTrainer(
        vocab_size=700, special_tokens=[*special, *BYTE_TOKENS], show_progress=False, max_token_length=8
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return tokenizer


def _weights(layers: int, vocab_size: int) -> dict[str, NDArray[np.float32]]:
    rng = np.random.default_rng(0)
    query, kv = HEADS * HEAD_DIM, KV_HEADS * HEAD_DIM
    layer = {
        "input_layernorm": (HIDDEN,),
        "self_attn.q_proj": (query, HIDDEN),
        "self_attn.k_proj": (kv, HIDDEN),
        "self_attn.v_proj": (kv, HIDDEN),
        "self_attn.o_proj": (HIDDEN, query),
        "post_attention_layernorm": (HIDDEN,),
        "mlp.gate_proj": (INTERMEDIATE, HIDDEN),
        "mlp.up_proj": (INTERMEDIATE, HIDDEN),
        "mlp.down_proj": (HIDDEN, INTERMEDIATE),
    }
    shapes: dict[str, Any] = {"embed_tokens": (vocab_size, HIDDEN), "norm": (HIDDEN,)}
    for index in range(layers):
        shapes |= {f"layers.{index}.{name}": shape for name, shape in layer.items()}
    return {f"model.{name}.weight": _values(rng, shape) for name, shape in shapes.items()}


def _values(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float32]:
    if len(shape) == 1:
        return rng.uniform(0.8, 1.2, shape).astype(np.float32)
    return rng.normal(0, 1.5 * shape[-1] ** -0.5, shape).astype(np.float32)
