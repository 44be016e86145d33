"""Quantised checkpoints compute what their numbers say: every scheme against the same model in floats."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from layerscale_backend_cpu.native_executor import native_isa
from layerscale_core.conformance.executors import kv_layout, logits_in_chunks, random_tokens, reference_kernels
from layerscale_core.formats import SafetensorsFormat
from layerscale_core.formats.safetensors.float8 import E4M3_VALUES
from layerscale_core.forward import KernelExecutor, make_executor
from layerscale_core.models import DenseMatrix, QuantizedMatrix
from layerscale_core.models.quantize import Quantization
from layerscale_core.quantized_model import quantized
from layerscale_core.specs import KVLayout, ModelFile, StepLimits
from tests.support.exact_cpu import exact_cpu
from tests.support.packed_folder import (
    Pack,
    Twins,
    pack_awq,
    pack_bytes,
    pack_compressed,
    pack_float8,
    pack_gptq,
    shard,
    write_twins,
)

NO_HEAD = "lm_head.weight"

NATIVE_TOLERANCE = 5e-2
"""On logits of a deviation of 2: native kernels hold minima as float16, and a zero point of 15 makes them large."""


def compressed(form: str, **weights: object) -> dict[str, object]:
    """A configuration as the library writes it."""
    described = {"num_bits": 4, "type": "int", "symmetric": True, "strategy": "group", "actorder": None, **weights}
    group = {"targets": ["Linear"], "weights": described, "input_activations": None}
    config = {"quant_method": "compressed-tensors", "format": form, "config_groups": {"group_0": group}}
    return {**config, "ignore": ["re:.*(a+)+$"], "kv_cache_scheme": None, "sparsity_config": {}, "transform_config": {}}


def blocks(rows: int, cols: int) -> tuple[int, int]:
    return -(-rows // 32), -(-cols // 32)


AWQ = {"quant_method": "awq", "bits": 4, "group_size": 32, "zero_point": True, "version": "gemm"}
GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 32, "sym": True, "desc_act": False, "dynamic": {"-:.*": {}}}
FP8 = {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic"}
STATIC = {"input_scale": np.ones(1, np.float32), "k_scale": np.ones((), np.float32)}

SCHEMES: Mapping[str, tuple[Mapping[str, object], Pack, int, bool]] = {
    "AWQ": (AWQ, pack_awq(32), 4, True),
    "AWQ in groups of 64": ({**AWQ, "group_size": 64}, pack_awq(64), 4, True),
    "AWQ in whole rows": ({**AWQ, "group_size": -1, "version": "GEMM"}, pack_awq(96), 4, True),
    "GPTQ": (GPTQ, pack_gptq(4, 32, is_symmetric=True), 4, False),
    "GPTQ in groups of 64": ({**GPTQ, "group_size": 64}, pack_gptq(4, 64, is_symmetric=True), 4, False),
    "GPTQ with zero points": ({**GPTQ, "sym": False}, pack_gptq(4, 32, is_symmetric=False), 4, True),
    "GPTQ v2": (
        {**GPTQ, "sym": False, "checkpoint_format": "gptq_v2"},
        pack_gptq(4, 32, is_symmetric=False, taken_from_zeros=0),
        4,
        True,
    ),
    "GPTQ with 8 bits": ({**GPTQ, "bits": 8}, pack_gptq(8, 32, is_symmetric=True), 8, False),
    "GPTQ in whole rows": (
        {**GPTQ, "bits": 8, "group_size": -1, "desc_act": True},
        pack_gptq(8, 96, is_symmetric=True),
        8,
        False,
    ),
    "compressed-tensors": (compressed("pack-quantized", group_size=32), pack_compressed(4, 32), 4, False),
    "compressed-tensors with zero points": (
        compressed("pack-quantized", group_size=64, symmetric=False),
        pack_compressed(4, 64, has_zeros=True),
        4,
        True,
    ),
    "compressed-tensors with older zero points": (
        compressed("pack-quantized", group_size=32, symmetric=False),
        pack_compressed(4, 32, has_zeros=True, zeros_in_words=False),
        4,
        True,
    ),
    "compressed-tensors with 8 bits in words": (
        compressed("pack-quantized", num_bits=8, strategy="channel"),
        pack_compressed(8, 96),
        8,
        False,
    ),
    "compressed-tensors in bytes": (
        compressed("int-quantized", num_bits=8, strategy="channel"),
        pack_bytes(96),
        8,
        False,
    ),
}
FLOAT8_SCHEMES: Mapping[str, tuple[Mapping[str, object], Pack]] = {
    "blocks": ({**FP8, "weight_block_size": [32, 32]}, pack_float8(blocks, "weight_scale_inv")),
    "tensors": (FP8, pack_float8(lambda *_: (), "weight_scale", **STATIC)),
    "rows": ({"quant_method": "fbgemm_fp8"}, pack_float8(lambda rows, _: (rows, 1), "weight_scale")),
    "compressed-tensors": (
        compressed("float-quantized", num_bits=8, type="float", strategy="channel"),
        pack_float8(lambda rows, _: (rows, 1), "weight_scale"),
    ),
    "compressed-tensors in blocks": (
        compressed("float-quantized", num_bits=8, type="float", strategy="block", block_structure=[32, 32]),
        pack_float8(blocks, "weight_scale"),
    ),
}


def open_folder(folder: Path, **how: Any) -> ModelFile:
    return SafetensorsFormat().open(folder, **how)


def reference_logits(file: ModelFile) -> NDArray[np.float32]:
    kv = kv_layout(file.spec, page_size=16)
    executor = KernelExecutor(reference_kernels(), file.spec, file.weights, kv)
    logits = logits_in_chunks(executor, kv, [random_tokens(file.spec, 30)])
    executor.close()
    return logits


def check_twins(twins: Twins) -> ModelFile:
    """Compare the two, weight by weight and in what they compute."""
    packed, floats = open_folder(twins.packed), open_folder(twins.floats)
    assert packed.spec == floats.spec
    assert packed.size_bytes == sum(path.stat().st_size for path in twins.packed.glob("*.safetensors"))
    for name in floats.weights.names():
        if len(floats.weights.shape(name)) == 2:
            expected = floats.weights.matrix(name).dequantize()
            np.testing.assert_allclose(packed.weights.matrix(name).dequantize(), expected, rtol=0, atol=1e-6)
            np.testing.assert_allclose(packed.weights.matrix(name, 3, 21).dequantize(), expected[3:21], atol=1e-6)
    np.testing.assert_allclose(reference_logits(packed), reference_logits(floats), rtol=0, atol=1e-4)
    floats.close()
    return packed


@pytest.mark.parametrize("name", SCHEMES)
def test_codes_compute_what_they_say(name: str, tmp_path: Path) -> None:
    config, pack, bits, has_mins = SCHEMES[name]
    file = check_twins(write_twins(tmp_path, pack, config, is_packed=lambda weight: weight != NO_HEAD))
    layout = file.weights.matrix("layers.0.down", 0, 1)
    assert isinstance(layout, QuantizedMatrix)
    assert layout.codes.flags.writeable, "fresh, and not the file's own memory"
    assert (layout.bits, layout.mins is not None, layout.group_size) == (bits, has_mins, 32)
    device = exact_cpu(num_threads=1)
    native = make_executor(device, file.spec, file.weights, kv_of(file))
    logits = logits_in_chunks(native, kv_of(file), [random_tokens(file.spec, 30)])
    np.testing.assert_allclose(logits, reference_logits(file), rtol=0, atol=NATIVE_TOLERANCE)
    native.close()
    file.close()


def kv_of(file: ModelFile) -> KVLayout:
    return kv_layout(file.spec, page_size=16)


@pytest.mark.skipif(native_isa() is None, reason="numpy holds every weight in float32")
@pytest.mark.parametrize("name", ["AWQ", "GPTQ with 8 bits"])
def test_the_plan_counts_the_bytes_of_the_codes(name: str, tmp_path: Path) -> None:
    config, pack, *_ = SCHEMES[name]
    file = open_folder(write_twins(tmp_path, pack, config, is_packed=lambda weight: weight != NO_HEAD).packed)
    device = exact_cpu(num_threads=1)
    sizes = device.memory_needs(file.spec, file.weights, StepLimits(16, 16, 64)).weights
    executor = make_executor(device, file.spec, file.weights, kv_of(file))
    matrices = sum(size for weight, size in sizes.items() if len(file.weights.shape(weight)) == 2)
    assert device.allocator.stats().used_bytes == matrices + kv_of(file).total_bytes
    executor.close()
    file.close()


@pytest.mark.parametrize("name", FLOAT8_SCHEMES)
def test_8_bit_floats_compute_what_they_say(name: str, tmp_path: Path) -> None:
    config, pack = FLOAT8_SCHEMES[name]
    file = check_twins(write_twins(tmp_path, pack, config))
    layout = file.weights.matrix("layers.0.down", 0, 0)
    assert isinstance(layout, DenseMatrix)
    assert layout.data.dtype == np.float16
    smaller = quantized(file, Quantization.INT8)
    assert isinstance(smaller.weights.matrix("layers.0.down", 0, 0), QuantizedMatrix)
    file.close()


@pytest.mark.xdist_group("transformers")
def test_8_bit_floats_are_those_of_torch() -> None:
    import torch  # noqa: PLC0415

    codes = torch.arange(256, dtype=torch.uint8)
    np.testing.assert_array_equal(E4M3_VALUES, codes.view(torch.float8_e4m3fn).float().numpy())


@pytest.mark.parametrize("name", ["AWQ", "GPTQ with zero points", "compressed-tensors with zero points"])
def test_any_module_may_be_packed_or_not_and_lie_in_any_file(name: str, tmp_path: Path) -> None:
    config, pack, *_ = SCHEMES[name]
    plain = ("layers.1.mlp", "k_proj", NO_HEAD)
    twins = write_twins(tmp_path, pack, config, is_packed=lambda weight: not any(part in weight for part in plain))
    shard(twins.packed)
    file = check_twins(twins)
    assert isinstance(file.weights.matrix("layers.0.gate", 0, 0), QuantizedMatrix)
    assert isinstance(file.weights.matrix("layers.1.gate", 0, 0), DenseMatrix)
    file.close()


def test_a_head_with_any_number_of_rows_may_be_packed(tmp_path: Path) -> None:
    config, pack, *_ = SCHEMES["compressed-tensors with zero points"]
    file = check_twins(write_twins(tmp_path, pack, config))
    assert file.weights.shape("output")[0] % 8
    assert isinstance(file.weights.matrix("output", 0, 0), QuantizedMatrix)
    file.close()


def test_modules_of_one_checkpoint_may_have_several_schemes(tmp_path: Path) -> None:
    config = compressed("mixed-precision", group_size=32)
    float8, int8 = ({"num_bits": 8, "type": kind, "strategy": "channel"} for kind in ("float", "int"))
    others = {"group_1": {"targets": ["re:.*"], "weights": float8}, "group_2": {"targets": [], "weights": int8}}
    config["config_groups"] |= others  # type: ignore[operator]

    def pack(rng: np.random.Generator, rows: int, cols: int) -> Any:
        packs = (pack_compressed(4, 32), pack_float8(lambda rows, _: (rows, 1), "weight_scale"), pack_bytes(96))
        return packs[rng.integers(3)](rng, rows, cols)

    file = check_twins(write_twins(tmp_path, pack, config))
    layouts = [file.weights.matrix(name, 0, 0) for name in file.weights.names() if "." in name and "norm" not in name]
    assert {getattr(layout, "bits", 16) for layout in layouts} == {4, 8, 16}
    file.close()


def test_a_header_alone_shows_the_layouts(tmp_path: Path) -> None:
    for name in ("AWQ", "GPTQ", "compressed-tensors with zero points"):
        config, pack, bits, _ = SCHEMES[name]
        twins = write_twins(tmp_path / name, pack, config, is_packed=lambda weight: weight != NO_HEAD)
        path = twins.packed / "model.safetensors"
        content = path.read_bytes()
        path.write_bytes(content[: 8 + int.from_bytes(content[:8], "little")])
        file = open_folder(twins.packed, metadata_only=True)
        layout = file.weights.matrix("layers.1.value", 0, 0)
        assert isinstance(layout, QuantizedMatrix)
        assert layout.bits == bits
        assert file.size_bytes == len(content)
        file.close()
