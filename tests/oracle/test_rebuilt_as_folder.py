"""The real model, rebuilt as a folder of safetensors from its GGUF file: the same texts, tokens and answers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save_file

from layerscale_core.conformance.executors import kv_layout
from layerscale_core.formats import GgufFormat, SafetensorsFormat, open_model
from layerscale_core.formats.gguf.parts import open_parts
from layerscale_core.formats.safetensors.weights import stored_tensors
from layerscale_core.forward import make_executor
from layerscale_core.models import ModelSpec
from layerscale_core.models.families import BY_HUGGINGFACE
from layerscale_core.specs import ModelFile
from tests.core.tokenizers.nasty_strings import NASTY_STRINGS
from tests.oracle.conftest import all_logits
from tests.oracle.predictions import CORPUS, deviation, predict
from tests.support.exact_cpu import exact_cpu
from tests.support.tiny_folder import byte_level_of, write_json

pytestmark = [pytest.mark.model, pytest.mark.xdist_group("oracle")]

NUM_LAYERS = 6
"""Of thirty: the folder holds 200 MB instead of 540."""


@pytest.fixture(scope="module")
def gguf_file(real_model_path: Path) -> Iterator[ModelFile]:
    file = open_model(real_model_path, [GgufFormat()])
    yield file
    file.close()


@pytest.fixture(scope="module")
def spec(gguf_file: ModelFile) -> ModelSpec:
    return replace(gguf_file.spec, layers=gguf_file.spec.layers[:NUM_LAYERS])


@pytest.fixture(scope="module")
def folder_file(
    real_model_path: Path, gguf_file: ModelFile, spec: ModelSpec, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ModelFile]:
    folder = tmp_path_factory.mktemp("rebuilt") / "SmolLM2"
    folder.mkdir()
    save_file(_weights(gguf_file, spec), folder / "model.safetensors")
    attention = spec.layers[0].attention
    config = {
        "model_type": "llama",
        "vocab_size": spec.vocab_size,
        "hidden_size": spec.hidden_size,
        "intermediate_size": 1536,
        "num_hidden_layers": NUM_LAYERS,
        "num_attention_heads": attention.num_heads,
        "num_key_value_heads": attention.num_kv_heads,
        "max_position_embeddings": spec.max_context_len,
        "rms_norm_eps": spec.norm_eps,
        "rope_theta": 100_000.0,
        "tie_word_embeddings": True,
    }
    write_json(folder / "config.json", config)
    tokens = gguf_file.make_tokenizer()
    texts = [tokens.token_text(token_id) for token_id in range(tokens.vocab_size)]
    special = [text for token_id, text in enumerate(texts) if not tokens.token_bytes(token_id)]
    ids = {text: token_id for token_id, text in enumerate(texts)}
    [part], metadata = open_parts(real_model_path)
    part.data.close()
    merges = [tuple(merge.split(" ")) for merge in metadata.array("tokenizer.ggml.merges")]
    byte_level_of(ids, merges, special).save(str(folder / "tokenizer.json"))
    settings = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "chat_template": gguf_file.chat_template}
    write_json(folder / "tokenizer_config.json", settings)
    file = open_model(folder, [SafetensorsFormat()])
    yield file
    file.close()


def test_the_descriptions_differ_in_the_order_of_rotated_pairs_alone(folder_file: ModelFile, spec: ModelSpec) -> None:
    def halves(layer_spec: ModelSpec) -> ModelSpec:
        [layer] = set(layer_spec.layers)
        rope = replace(layer.attention.rope, interleaved=False)
        return replace(layer_spec, layers=(replace(layer, attention=replace(layer.attention, rope=rope)),))

    assert halves(folder_file.spec) == halves(replace(spec, num_parameters=folder_file.spec.num_parameters))


def test_texts_are_the_same_tokens(gguf_file: ModelFile, folder_file: ModelFile) -> None:
    ours, theirs = folder_file.make_tokenizer(), gguf_file.make_tokenizer()
    for text in (*NASTY_STRINGS, *CORPUS):
        for parse_special in (False, True):
            ids = theirs.encode(text, parse_special=parse_special)
            assert ours.encode(text, parse_special=parse_special) == ids, repr(text[:80])
            assert ours.decode(ids) == theirs.decode(ids)
    assert (ours.bos_id, ours.eos_id, ours.stop_ids) == (theirs.bos_id, theirs.eos_id, theirs.stop_ids)
    assert folder_file.chat_template == gguf_file.chat_template


def test_predictions_are_the_same(gguf_file: ModelFile, folder_file: ModelFile, spec: ModelSpec) -> None:
    texts = [gguf_file.make_tokenizer().encode(text, parse_special=True)[:100] for text in CORPUS]
    predictions = []
    for description, file in ((spec, gguf_file), (folder_file.spec, folder_file)):
        kv = kv_layout(description, page_size=16)
        executor = make_executor(exact_cpu(), description, file.weights, kv)
        predictions.append(predict(lambda ids, e=executor, kv=kv: all_logits(e, kv, ids), texts))
        executor.close()
    between = deviation(predictions[1], predictions[0])
    print(f"difference between the folder and the GGUF file: {between}")
    assert between.mean_logprob_error < 0.002  # activations are rounded to 16 bits beside codes, not beside floats
    assert between.top1_agreement > 0.995


def _weights(file: ModelFile, spec: ModelSpec) -> dict[str, NDArray[np.float32]]:
    """The GGUF file's weights, dequantised, in the names and the order of Hugging Face's files."""
    attention = spec.layers[0].attention
    tensors = {}
    for tensor in stored_tensors(spec, BY_HUGGINGFACE["llama"], "model."):
        [weight] = tensor.weights
        if len(file.weights.shape(weight)) == 1:
            tensors[tensor.name] = file.weights.vector(weight)
            continue
        values = file.weights.matrix(weight).dequantize()
        if weight.endswith((".query", ".key")):
            pairs = values.reshape(-1, attention.head_dim // 2, 2, values.shape[-1])
            values = pairs.swapaxes(1, 2).reshape(values.shape)
        tensors[tensor.name] = np.ascontiguousarray(values)
    return tensors
