"""Quantised checkpoints that make no sense, or that map onto nothing: one typed line each."""

from __future__ import annotations

import json
import random
import tracemalloc
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from layerscale_core.errors import LayerScaleError, ModelFileError, UnsupportedModelError
from layerscale_core.formats import SafetensorsFormat
from tests.core.formats.test_safetensors_fuzz import MAX_PEAK_BYTES, ROUNDS, damage
from tests.support.packed_folder import (
    Pack,
    Tensors,
    edit,
    load,
    pack_awq,
    pack_compressed,
    pack_float8,
    pack_gptq,
    save,
    write_twins,
)
from tests.support.tiny_folder import read_weights, write_json, write_tiny_folder

AWQ = {"quant_method": "awq", "bits": 4, "group_size": 32}
GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 32}
FP8 = {"quant_method": "fp8", "weight_block_size": [32, 32]}
INT4 = {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 32}
PACKED = {"quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups": {"0": {"weights": INT4}}}
BLOCKS = pack_float8(lambda rows, cols: (-(-rows // 32), -(-cols // 32)), "weight_scale_inv")

CHECKPOINTS: Mapping[str, tuple[Mapping[str, object], Pack]] = {
    "awq": (AWQ, pack_awq(32)),
    "gptq": (GPTQ, pack_gptq(4, 32, is_symmetric=True)),
    "fp8": (FP8, BLOCKS),
    "packed": (PACKED, pack_compressed(4, 32, has_zeros=True)),
}
GATE = "model.layers.0.mlp.gate_proj."
Change = Callable[[Tensors], object]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One of every kind, to be copied."""
    folder = tmp_path_factory.mktemp("checkpoints")
    return {
        name: write_twins(folder / name, pack, config, is_packed=lambda weight: "layers.0.mlp" in weight).packed
        for name, (config, pack) in CHECKPOINTS.items()
    }


def copy_of(folder: Path, target: Path) -> Path:
    target.mkdir()
    for path in folder.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    return target


def open_and_read(folder: Path) -> None:
    read_weights(SafetensorsFormat().open(folder))


def edited(folder: Path, target: Path, change: Mapping[str, object]) -> Path:
    copy = copy_of(folder, target)
    edit(copy, change)
    return copy


def line_of(folder: Path, kind: type[LayerScaleError]) -> str:
    with pytest.raises(kind) as caught:
        open_and_read(folder)
    assert caught.type is kind
    line = str(caught.value)
    assert "\n" not in line
    return line


@pytest.mark.parametrize(
    "method", ["bitsandbytes", "eetq", "hqq", "aqlm", "quanto", "torchao", "mxfp4", "modelopt", "bitnet", "x" * 1000]
)
def test_other_schemes_are_refused_by_name(tmp_path: Path, method: str) -> None:
    folder = write_tiny_folder(tmp_path / "tiny", config={"quantization_config": {"quant_method": method}})
    line = line_of(folder, UnsupportedModelError)
    assert (
        f"weights quantised as {method[:64]!r} cannot be read; supported are AWQ (gemm), GPTQ, FP8 (e4m3) and" in line
    )
    assert len(line) < 500


@pytest.mark.parametrize(
    ("kind", "change", "says"),
    [
        ("awq", {"bits": 3}, "AWQ with 3 bits"),
        ("awq", {"version": "gemv"}, "version 'gemv'"),
        ("awq", {"zero_point": False}, "without zero points"),
        ("gptq", {"bits": 3}, "GPTQ with 3 bits"),
        ("gptq", {"checkpoint_format": "marlin"}, "in the format 'marlin'"),
        ("gptq", {"desc_act": True}, "sorted by activation (desc_act)"),
        ("gptq", {"dynamic": {"+:.*down": {"bits": 8}}}, "for some modules (dynamic)"),
        ("fp8", {"fmt": "e5m2"}, "FP8 as 'e5m2'"),
        ("fp8", {"scale_fmt": "ue8m0"}, "scales as 'ue8m0'"),
        ("fp8", {"quant_method": "awq"}, "is of type 'F8_E4M3', and quantization_config does not say what it means"),
        ("packed", {"format": "nvfp4-pack-quantized"}, "in the format 'nvfp4-pack-quantized'"),
        ("packed", {"format": "marlin-24"}, "in the format 'marlin-24'"),
        ("packed", {"sparsity_config": {"format": "sparse-24-bitmask"}}, "sparse weights ('sparse-24-bitmask')"),
        ("packed", {"transform_config": {"r": {"type": "hadamard"}}}, "transformed activations"),
        ("packed", {"config_groups": {"0": {"weights": {**INT4, "num_bits": 2}}}}, "2 bits of type 'int'"),
        ("packed", {"config_groups": {"0": {"weights": {**INT4, "type": "float"}}}}, "4 bits of type 'float'"),
        ("packed", {"config_groups": {"0": {"weights": {**INT4, "strategy": "token"}}}}, "a scale for each 'token'"),
        ("packed", {"config_groups": {"0": {"weights": {**INT4, "num_bits": 8, "group_size": 16}}}}, "groups of 16"),
    ],
    ids=str,
)
def test_what_maps_onto_no_layout_is_named(
    checkpoints: dict[str, Path], tmp_path: Path, kind: str, change: dict[str, object], says: str
) -> None:
    assert says in line_of(edited(checkpoints[kind], tmp_path / "copy", change), UnsupportedModelError)


@pytest.mark.parametrize(
    ("kind", "change", "says"),
    [
        ("awq", {"quant_method": None}, "the key is missing, field 'quantization_config.quant_method'"),
        ("awq", {"quant_method": 7}, "expected text"),
        ("awq", {"bits": "4"}, "expected a whole number"),
        ("awq", {"group_size": 0}, "a group of no columns"),
        ("awq", {"group_size": -2}, "must be between -1 and"),
        ("awq", {"group_size": 2**40}, "must be between -1 and"),
        ("awq", {"group_size": 64}, "quantization_config asks for [2, "),
        ("gptq", {"bits": None}, "the key is missing"),
        ("gptq", {"sym": "yes"}, "expected a boolean"),
        ("gptq", {"bits": 8}, "quantization_config asks for"),
        ("gptq", {"checkpoint_format": "gptq_v2"}, "zero points differ, though"),
        ("fp8", {"weight_block_size": [32]}, "expected the rows and columns of a block"),
        ("fp8", {"weight_block_size": [0, 32]}, "expected the rows and columns of a block"),
        ("fp8", {"weight_block_size": "32x32"}, "expected an array"),
        ("fp8", {"weight_block_size": [2**20, 2**20]}, "quantization_config asks for [1, 1]"),
        ("fp8", {"weight_block_size": None}, "should have one scale, or one for each row"),
        ("packed", {"config_groups": {}}, "expected 1 to 64 groups with weights, found 0"),
        ("packed", {"config_groups": {str(n): {"weights": INT4} for n in range(65)}}, "found 65"),
        ("packed", {"config_groups": {"0": {"weights": {**INT4, "group_size": 64}}}}, "no scheme of config_groups"),
        ("packed", {"config_groups": {"0": {"weights": {**INT4, "num_bits": None}}}}, "the key is missing"),
        (
            "packed",
            {"config_groups": {"0": {"weights": INT4}, "1": {"weights": {**INT4, "num_bits": 8, "group_size": 16}}}},
            "more than one scheme of config_groups",
        ),
    ],
    ids=lambda value: str(value)[:60],
)
def test_a_configuration_that_makes_no_sense_is_refused(
    checkpoints: dict[str, Path], tmp_path: Path, kind: str, change: dict[str, object], says: str
) -> None:
    assert says in line_of(edited(checkpoints[kind], tmp_path / "copy", change), ModelFileError)


@pytest.mark.parametrize("value", ["awq", [1], 4, True])
def test_a_configuration_that_is_no_object_is_refused(tmp_path: Path, value: object) -> None:
    folder = write_tiny_folder(tmp_path / "tiny", config={"quantization_config": value})
    assert "expected an object, field 'quantization_config'" in line_of(folder, ModelFileError)


def without(part: str) -> Change:
    return lambda tensors: tensors.pop(GATE + part)


def replaced(part: str, change: Callable[[Any], Any]) -> Change:
    return lambda tensors: tensors.update({GATE + part: change(tensors[GATE + part])})


@pytest.mark.parametrize(
    ("kind", "change", "says"),
    [
        ("awq", without("scales"), "the tensor is missing, field 'model.layers.0.mlp.gate_proj.scales'"),
        ("awq", without("qzeros"), "the tensor is missing"),
        ("awq", without("qweight"), "gate_proj.weight"),
        ("awq", replaced("qweight", lambda x: x[:, :5]), "quantization_config asks for [2, 5]"),
        ("awq", replaced("qweight", lambda x: x[:32]), "quantization_config asks for [1, 12]"),
        ("awq", replaced("qweight", lambda x: x.reshape(-1)), "should have two dimensions"),
        ("awq", replaced("qweight", lambda x: x.astype(np.int8)), "is of type I8, not I32"),
        ("awq", replaced("scales", lambda x: x.astype(np.int32)), "is of type I32, not F32 or F16 or BF16"),
        ("gptq", replaced("g_idx", lambda x: x[:-1]), "has the shape [63], quantization_config asks for [64]"),
        ("gptq", replaced("qzeros", lambda x: x ^ 1), "zero points differ, though"),
        ("gptq", replaced("scales", lambda x: x[:, :-1]), "has the shape [2, 95]"),
        ("fp8", without("weight_scale_inv"), "the tensor is missing"),
        (
            "fp8",
            replaced("weight_scale_inv", lambda x: x[:2]),
            "has the shape [2, 2], quantization_config asks for [3, 2]",
        ),
        ("packed", without("weight_scale"), "the tensor is missing"),
        ("packed", replaced("weight_scale", lambda x: x[:, :1]), "no scheme of config_groups has scales of the shape"),
        ("packed", replaced("weight_zero_point", lambda x: x[:-1]), "quantization_config asks for [12, 2]"),
        ("packed", replaced("weight_packed", lambda x: x.astype(np.int8)), "is of type I8, not I32"),
    ],
)
def test_a_tensor_that_does_not_fit_is_named(
    checkpoints: dict[str, Path], tmp_path: Path, kind: str, change: Change, says: str
) -> None:
    assert says in line_of(changed(checkpoints[kind], tmp_path / "copy", change), ModelFileError)


@pytest.mark.parametrize(
    ("kind", "change", "says"),
    [
        ("gptq", replaced("g_idx", lambda x: x[::-1].copy()), "'model.layers.0.mlp.gate_proj': its inputs are sorted"),
        ("awq", lambda tensors: tensors.update({f"{GATE}extra": np.zeros(3, np.float32)}), "with a tensor"),
        (
            "packed",
            lambda tensors: tensors.update({f"{GATE}weight_g_idx": np.zeros(64, np.int32)}),
            "its inputs are sorted by activation",
        ),
        (
            "fp8",
            lambda tensors: tensors.update({"model.embed_tokens.weight": np.zeros((322, 64), np.int8)}),
            "tensor 'model.embed_tokens.weight' is of type 'I8', and quantization_config does not say what it means",
        ),
    ],
)
def test_a_tensor_that_says_something_else_is_named(
    checkpoints: dict[str, Path], tmp_path: Path, kind: str, change: Change, says: str
) -> None:
    assert says in line_of(changed(checkpoints[kind], tmp_path / "copy", change), UnsupportedModelError)


def changed(folder: Path, target: Path, change: Change) -> Path:
    copy = copy_of(folder, target)
    tensors = load(copy / "model.safetensors")
    change(tensors)
    save(tensors, copy / "model.safetensors")
    return copy


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_bias_without_a_place_may_be_there_if_it_adds_nothing(
    checkpoints: dict[str, Path], tmp_path: Path, value: float
) -> None:
    folder = changed(
        checkpoints["gptq"],
        tmp_path / "copy",
        lambda tensors: tensors.update({f"{GATE}bias": np.full(96, value, np.float16)}),
    )
    SafetensorsFormat().open(folder, metadata_only=True).close()
    if value == 0:
        open_and_read(folder)
    else:
        assert "with a tensor 'model.layers.0.mlp.gate_proj.bias'" in line_of(folder, UnsupportedModelError)


def test_rows_that_groups_do_not_divide_are_refused(tmp_path: Path) -> None:
    folder = write_tiny_folder(tmp_path / "tiny", config={"quantization_config": AWQ, "intermediate_size": 80})
    tensors = load(folder / "model.safetensors")
    tensors.update({f"{GATE}qweight": np.zeros((80, 8), np.int32), f"{GATE}qzeros": np.zeros((3, 8), np.int32)})
    tensors[f"{GATE}scales"] = np.zeros((3, 64), np.float16)
    save(tensors, folder / "model.safetensors")
    assert "rows of 80 columns in groups of 32; packed weights come in groups of 32" in line_of(
        folder, UnsupportedModelError
    )


@pytest.mark.parametrize("kind", CHECKPOINTS)
def test_damaged_checkpoints_open_or_end_in_one_typed_line(
    checkpoints: dict[str, Path], tmp_path: Path, kind: str
) -> None:
    folder = copy_of(checkpoints[kind], tmp_path / "copy")
    refusals: list[str] = []
    tracemalloc.start()
    try:
        for seed in range(ROUNDS // 5):
            name = ("config.json", "model.safetensors")[seed % 2]
            whole = (folder / name).read_bytes()
            (folder / name).write_bytes(damage(whole, random.Random(seed)))
            tracemalloc.reset_peak()
            try:
                with np.errstate(all="ignore"):
                    open_and_read(folder)
            except (ModelFileError, UnsupportedModelError) as error:
                refusals.append(str(error))
            except Exception as error:
                raise AssertionError(f"damage of {name} with seed {seed} escapes") from error
            finally:
                (folder / name).write_bytes(whole)
            assert tracemalloc.get_traced_memory()[1] < MAX_PEAK_BYTES, seed
    finally:
        tracemalloc.stop()
    assert 0 < len(refusals) < ROUNDS // 5
    assert max(map(len, refusals)) < 1000
    assert not any("\n" in line for line in refusals)


def test_lists_of_modules_are_never_evaluated(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    folder = copy_of(checkpoints["packed"], tmp_path / "copy")
    edit(folder, {"ignore": ["re:(a+)+$", "lm_head", 7, None], "modules_to_not_convert": {"x": 1}})
    open_and_read(folder)


def test_an_empty_configuration_is_none(tmp_path: Path) -> None:
    folder = write_tiny_folder(tmp_path / "tiny")
    config = folder / "config.json"
    write_json(config, {**json.loads(config.read_text()), "quantization_config": None})
    open_and_read(folder)
