"""Folders of safetensors: what is read of them, and the folders that make no sense."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from layerscale_core.errors import LayerScaleError, ModelFileError, UnsupportedModelError
from layerscale_core.formats import SafetensorsFormat, open_model
from layerscale_core.formats.safetensors.config import read_config, read_numbers
from layerscale_core.models import ModelSpec, TemperatureSpec
from layerscale_core.models.describe import describe as describe_model
from tests.support.tiny_folder import HEAD_DIM, byte_level, write_json, write_tiny_folder
from tests.support.tiny_gguf import CHATML_TEMPLATE

NAN = math.nan


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_tiny_folder(tmp_path / "Tiny-0.1B", layers=1)


def describe(folder: Path, **config: object) -> ModelSpec:
    """The description of a folder, with keys of its configuration changed; None removes one."""
    path = folder / "config.json"
    settings = {**json.loads(path.read_text()), **config}
    write_json(path, {key: value for key, value in settings.items() if value is not None})
    file = open_model(folder, [SafetensorsFormat()])
    file.close()
    return file.spec


def error_of(folder: Path, kind: type[LayerScaleError], **config: object) -> str:
    with pytest.raises(kind) as caught:
        describe(folder, **config)
    assert caught.type is kind
    line = str(caught.value)
    assert "\n" not in line
    return line


def test_describes_the_folder(folder: Path) -> None:
    file = open_model(folder, [SafetensorsFormat()])
    assert file.name == "Tiny-0.1B"
    assert file.size_bytes == (folder / "model.safetensors").stat().st_size
    assert file.spec.architecture == "llama"
    assert not file.spec.layers[0].attention.rope.interleaved
    assert file.chat_template == CHATML_TEMPLATE
    file.close()


# The chat template


def test_a_template_of_its_own_goes_before_the_configurations(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text("mine")
    file = open_model(folder, [SafetensorsFormat()])
    assert file.chat_template == "mine"
    file.close()


@pytest.mark.parametrize(
    ("settings", "template"),
    [
        ({}, None),
        ({"chat_template": [{"name": "tool_use", "template": "a"}, {"name": "default", "template": "b"}]}, "b"),
        ({"chat_template": [{"name": "tool_use", "template": "a"}]}, None),
    ],
)
def test_of_several_templates_the_one_for_ordinary_chats_is_taken(
    folder: Path, settings: dict[str, Any], template: str | None
) -> None:
    write_json(folder / "tokenizer_config.json", settings)
    file = open_model(folder, [SafetensorsFormat()])
    assert file.chat_template == template
    file.close()


def test_a_template_that_is_no_text_is_refused(folder: Path) -> None:
    write_json(folder / "tokenizer_config.json", {"chat_template": 3})
    assert "expected text" in error_of(folder, ModelFileError)
    (folder / "tokenizer_config.json").write_text('{"chat_template": "\\ud800"}')
    assert "not valid Unicode" in error_of(folder, ModelFileError)
    (folder / "chat_template.jinja").write_bytes(b"\xff")
    assert "not valid UTF-8" in error_of(folder, ModelFileError)
    (folder / "chat_template.jinja").write_bytes(b"x" * (2**20 + 1))
    assert "more than 1,048,576 bytes" in error_of(folder, ModelFileError)


# config.json


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"hidden_size": None}, "hidden_size"),
        ({"hidden_size": 0}, "between 1 and"),
        ({"hidden_size": 65, "head_dim": 16}, "the metadata asks for [322, 65]"),
        ({"hidden_size": 65}, "4 heads do not divide the width 65"),
        ({"num_hidden_layers": 10**9}, "between 1 and 4096"),
        ({"num_hidden_layers": "2"}, "expected a whole number, found text"),
        ({"num_hidden_layers": 2}, "model.layers.1.input_layernorm.weight"),
        ({"num_key_value_heads": 3}, "3 does not divide the 4 query heads"),
        ({"rms_norm_eps": 0}, "above 0"),
        ({"tie_word_embeddings": "yes"}, "expected a boolean"),
        ({"tie_word_embeddings": False}, "lm_head.weight"),
        ({"rope_theta": 1.0}, "above 1"),
        ({"rope_scaling": {"rope_type": "longrope", "long_factor": [1.0], "factor": 4.0}}, "short_factor"),
        ({"rope_scaling": {"rope_type": "longrope", "short_factor": [1.0]}}, "expected 8 numbers"),
        ({"rope_scaling": {"rope_type": "longrope", "short_factor": [0.0] * 8}}, "not a positive number"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 1e30}}, "makes no sense"),
        ({"partial_rotary_factor": 0.2}, "3 of 16 elements cannot be rotated"),
        ({"partial_rotary_factor": 2.0}, "32 of 16 elements cannot be rotated"),
        ({"layer_types": ["full_attention"] * 2}, "expected 1 entries, found 2"),
        ({"no_rope_layers": [2]}, "expected 1 times 0 or 1"),
        ({"floor_scale": 8192, "attn_temperature_tuning": "yes"}, "expected a boolean or a whole number"),
        (
            {"model_type": "mixtral", "num_local_experts": 2, "num_experts_per_tok": 1, "moe_layers": 3},
            "expected whole numbers",
        ),
        ({"model_type": "mixtral", "num_local_experts": 8}, "num_experts_per_tok"),
        ({"model_type": "mixtral", "num_local_experts": 10**6}, "between 1 and 4096"),
        ({"model_type": 3}, "expected text"),
        ({"vocab_size": 400}, "the metadata asks for [400, 64]"),
    ],
    ids=str,
)
def test_names_the_key_that_makes_no_sense(folder: Path, config: dict[str, Any], says: str) -> None:
    assert says in error_of(folder, ModelFileError, **config)


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"model_type": "mamba"}, "the model type 'mamba' is not supported; known: gemma, gemma2, gemma3, gemma3_text"),
        ({"hidden_act": "relu2"}, "activation 'relu2'"),
        (
            {"rope_scaling": {"type": "ntk", "factor": 2.0}},
            "RoPE scaling 'ntk' is not supported; known: default",
        ),
        ({"layer_types": ["linear_attention"]}, "layers of type 'linear_attention'"),
        ({"use_bidirectional_attention": True}, "looks ahead"),
    ],
    ids=str,
)
def test_says_what_this_build_cannot_run(folder: Path, config: dict[str, Any], says: str) -> None:
    assert says in error_of(folder, UnsupportedModelError, **config)


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"{", b'{"a": NaN}', b'{"a": 1, "a": 2}', b"\xff", b"[" * 100_000, b'{"a": ' + b"1" * 5000 + b"}"],
)
def test_a_configuration_that_is_no_object_is_refused(folder: Path, content: bytes) -> None:
    (folder / "config.json").write_bytes(content)
    with pytest.raises(ModelFileError, match=r"config\.json"):
        open_model(folder, [SafetensorsFormat()])


def test_a_configuration_is_bounded(folder: Path) -> None:
    (folder / "config.json").write_bytes(b" " * 4_000_001)
    with pytest.raises(ModelFileError, match="more than 4,000,000 bytes"):
        open_model(folder, [SafetensorsFormat()])


def test_rotation_may_stand_in_the_older_way(folder: Path) -> None:
    old = describe(folder, rope_theta=500.0, rope_scaling={"type": "linear", "factor": 2.0})
    new = describe(
        folder,
        rope_theta=None,
        rope_scaling=None,
        rope_parameters={"rope_type": "linear", "rope_theta": 500.0, "factor": 2.0},
    )
    assert old.layers == new.layers
    np.testing.assert_allclose(new.layers[0].attention.rope.inv_freq[1], 500 ** (-2 / HEAD_DIM) / 2)


def test_dynamic_scaling_changes_nothing_within_the_context(folder: Path) -> None:
    assert describe(folder, rope_scaling={"type": "dynamic", "factor": 2.0}) == describe(folder, rope_scaling=None)


def test_llama_4_scouts_configuration_is_read(tmp_path: Path) -> None:
    inner = {
        "hidden_size": 512,
        "intermediate_size": 256,
        "num_hidden_layers": 8,
        "num_attention_heads": 4,
        "head_dim": 128,
        "vocab_size": 1000,
        "max_position_embeddings": 10_485_760,
        "attn_temperature_tuning": 4,
        "no_rope_layers": [],
        "model_type": "llama4_text",
        "rope_scaling": {
            "factor": 16.0,
            "high_freq_factor": 1.0,
            "low_freq_factor": 1.0,
            "original_max_position_embeddings": 8192,
            "rope_type": "llama3",
        },
    }
    write_json(tmp_path / "config.json", {"model_type": "llama4", "text_config": inner})
    config, family = read_config(tmp_path)
    attentions = [layer.attention for layer in describe_model(family, read_numbers(config, family)).layers]
    for index, attention in enumerate(attentions):
        is_whole = index in (3, 7)
        assert attention.chunk == (None if is_whole else 8192)
        assert attention.rope.rotary_dim == (0 if is_whole else 128)
        assert attention.temperature == (TemperatureSpec(8192, 0.1, offset=1) if is_whole else None)


def test_a_language_model_of_a_type_of_its_own_is_found(folder: Path) -> None:
    inner = json.loads((folder / "config.json").read_text()) | {"model_type": "mistral", "sliding_window": None}
    write_json(folder / "config.json", {"model_type": "mistral3", "text_config": inner})
    assert describe(folder).architecture == "mistral"


def test_yarn_stretches_the_context_of_a_file_that_gives_the_original_one(folder: Path) -> None:
    scaling = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 512}
    assert describe(folder, rope_scaling=scaling).max_context_len == 2048


def test_a_language_model_beside_other_parts_is_found(folder: Path) -> None:
    for prefix in ("language_model.model.", "model.language_model."):
        weights = load_file(folder / "model.safetensors")
        renamed = {f"{prefix}{name[name.index('.') + 1 :]}": weight for name, weight in weights.items()}
        if "model.embed_tokens.weight" in weights:
            renamed["vision_tower.patches.weight"] = np.zeros((3, 3), np.float32)
            save_file(renamed, folder / "model.safetensors")
            assert describe(folder).num_parameters > 0
            write_tiny_folder(folder, layers=1)


def test_a_tensor_that_has_no_place_in_the_model_is_not_ignored(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    save_file(weights | {"model.layers.0.self_attn.o_proj.bias": np.ones(64, np.float32)}, folder / "model.safetensors")
    assert "'model.layers.0.self_attn.o_proj.bias' cannot be run yet" in error_of(folder, UnsupportedModelError)


def test_a_copy_of_a_tied_head_and_computed_tables_are_left_out(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
    weights["model.layers.0.self_attn.rotary_emb.inv_freq"] = np.ones(8, np.float32)
    save_file(weights, folder / "model.safetensors")
    assert describe(folder).tied_output


# Files


def test_weights_in_other_formats_are_not_read(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert "neither model.safetensors nor model.safetensors.index.json" in error_of(folder, ModelFileError)


def test_a_file_of_weights_alone_says_to_name_the_folder(folder: Path) -> None:
    with pytest.raises(ModelFileError, match="name the folder that holds it"):
        open_model(folder / "model.safetensors", [SafetensorsFormat()])


def write_index(folder: Path, weight_map: object) -> None:
    write_json(folder / "model.safetensors.index.json", {"metadata": {}, "weight_map": weight_map})


@pytest.mark.parametrize(
    ("weight_map", "says"),
    [
        ({}, "expected an object with entries"),
        ([], "expected an object with entries"),
        ({"x": "../model.safetensors"}, "not that of a .safetensors file here"),
        ({"x": "/etc/passwd"}, "not that of a .safetensors file here"),
        ({"x": "pytorch_model.bin"}, "not that of a .safetensors file here"),
        ({"x": "a\0.safetensors"}, "not that of a .safetensors file here"),
        ({"x": 7}, "not that of a .safetensors file here"),
        ({"x": "missing.safetensors"}, "no such file"),
        ({"x": "model.safetensors"}, "the index says that the tensor is here"),
        ({str(index): f"{index}.safetensors" for index in range(1001)}, "more than 1000 files"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_an_index_that_makes_no_sense_is_refused(folder: Path, weight_map: object, says: str) -> None:
    write_index(folder, weight_map)
    assert says in error_of(folder, ModelFileError)


def test_a_tensor_in_two_files_is_refused(folder: Path) -> None:
    save_file({"model.norm.weight": np.ones(64, np.float32)}, folder / "other.safetensors")
    write_index(folder, {"model.norm.weight": "other.safetensors", "model.embed_tokens.weight": "model.safetensors"})
    assert "holds it too" in error_of(folder, ModelFileError)


def header_of(entries: object, data: bytes = b"", length: int | None = None) -> bytes:
    content = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    return struct.pack("<Q", len(content) if length is None else length) + content + data


def entry(**changes: object) -> dict[str, object]:
    return {"x": {"dtype": "F32", "shape": [1, 2], "data_offsets": [0, 8], **changes}}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"\0" * 7, "truncated: 7 bytes are no header"),
        (header_of({}, length=2**63), "more than the limit of 16000000"),
        (header_of({}, length=3), "truncated: it claims a header of 3 bytes, 2 are left"),
        (header_of([]), "not a JSON object"),
        (header_of(b"\xff\xff"), "not valid JSON"),
        (header_of(b"[" * 100_000), "nested too deeply"),
        (header_of({"x": []}), "dtype, shape and data_offsets"),
        (header_of({"x": {"dtype": "F32"}}), "dtype, shape and data_offsets"),
        (header_of(entry(dtype=3)), "dtype is not text"),
        (header_of(entry(shape=[1, "2"])), "shape is not a list of whole numbers"),
        (header_of(entry(shape=[True, 2])), "shape is not a list of whole numbers"),
        (header_of(entry(shape=[2**63, 2**63])), "shape is not a list of whole numbers"),
        (header_of(entry(shape=[0, 2])), "none of them 0"),
        (header_of(entry(shape=[1] * 9)), "at most 8 dimensions"),
        (header_of(entry(data_offsets=[0, -8])), "data_offsets is not a list of whole numbers"),
        (header_of(entry(data_offsets=[0])), "must begin at 0"),
        (header_of(entry(data_offsets=[4, 12]), bytes(12)), "must begin at 0, without gap"),
        (header_of(entry(data_offsets=[0, 12]), bytes(12)), "takes 8 bytes, its offsets 12"),
        (header_of({**entry(), "y": entry()["x"]}, bytes(8)), "must begin at 8"),
        (header_of(entry(), bytes(7)), "truncated or too long"),
        (header_of(entry(), bytes(9)), "truncated or too long"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_header_that_makes_no_sense_is_refused(folder: Path, content: bytes, says: str) -> None:
    (folder / "model.safetensors").write_bytes(content)
    assert says in error_of(folder, ModelFileError)


def test_a_type_that_cannot_be_read_is_named(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(header_of(entry(dtype="F8_E5M2"), bytes(2)))
    assert "of type 'F8_E5M2', which cannot be read; supported are F32, F16, BF16" in error_of(
        folder, UnsupportedModelError
    )


def test_the_tokenizer_need_not_be_as_large_as_the_embedding(tmp_path: Path) -> None:
    size = byte_level().get_vocab_size()
    folder = write_tiny_folder(tmp_path / "padded", layers=1)
    weights = load_file(folder / "model.safetensors")
    weights["model.embed_tokens.weight"] = np.pad(weights["model.embed_tokens.weight"], [(0, 14), (0, 0)])
    save_file(weights, folder / "model.safetensors")
    describe(folder, vocab_size=size + 14)
    file = open_model(folder, [SafetensorsFormat()])
    assert (file.make_tokenizer().vocab_size, file.spec.vocab_size) == (size, size + 14)
    file.close()
