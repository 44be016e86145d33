"""What a ``config.json`` says of weights that are quantised, and what of it can be read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NoReturn

from layerscale_core.errors import UnsupportedModelError
from layerscale_core.formats.limits import MAX_WIDTH
from layerscale_core.formats.metadata import Metadata
from layerscale_core.formats.safetensors.awq import BITS, AwqScheme
from layerscale_core.formats.safetensors.compressed import CompressedScheme, WeightScheme
from layerscale_core.formats.safetensors.float8 import Float8Scheme
from layerscale_core.formats.safetensors.gptq import GptqScheme
from layerscale_core.formats.safetensors.packed import Scheme

_KEY = "quantization_config"
_COMPRESSED_FORMATS = {"pack-quantized", "int-quantized", "float-quantized", "naive-quantized", "mixed-precision"}
_MAX_SCHEMES = 64


def read_scheme(config: Metadata) -> Scheme | None:
    """How the weights are quantised; None where they are not.

    Raises:
        ModelFileError: the configuration makes no sense.
        UnsupportedModelError: a scheme that maps onto no internal layout.
    """
    if config.values.get(_KEY) is not None:
        config.fail(_KEY, "expected an object")
    if not any(key.startswith(f"{_KEY}.") for key in config.values):
        return None
    method = config.text(f"{_KEY}.quant_method")
    if method not in _READERS:
        _refuse(config, f"weights quantised as {method[:64]!r}")
    return _READERS[method](config)


def _refuse(config: Metadata, what: str) -> NoReturn:
    raise UnsupportedModelError(
        f"{config.path}: {what} cannot be read; supported are AWQ (gemm), GPTQ, FP8 (e4m3) and compressed-tensors, and "
        "--quantization quantises a model in floats"
    )


def _awq(config: Metadata) -> Scheme:
    bits = config.integer(f"{_KEY}.bits", default=BITS)
    version = config.text(f"{_KEY}.version", default="gemm").lower()
    if bits != BITS or version != "gemm" or not config.flag(f"{_KEY}.zero_point", default=True):
        _refuse(config, f"AWQ with {bits} bits, version {version[:16]!r}, or without zero points")
    return AwqScheme(_group_size(config, f"{_KEY}.group_size"))


def _gptq(config: Metadata) -> Scheme:
    bits = config.integer(f"{_KEY}.bits")
    group_size = _group_size(config, f"{_KEY}.group_size")
    is_symmetric = config.flag(f"{_KEY}.sym", default=True)
    form = config.text(f"{_KEY}.checkpoint_format", default=config.text(f"{_KEY}.format", default="gptq"))
    if bits not in (4, 8) or form not in ("gptq", "gptq_v2"):
        _refuse(config, f"GPTQ with {bits} bits in the format {form[:16]!r}")
    if config.flag(f"{_KEY}.desc_act", default=False) and group_size is not None:
        _refuse(config, "GPTQ with inputs sorted by activation (desc_act)")
    if any(key.startswith(f"{_KEY}.dynamic.") for key in config.values):
        _refuse(config, "GPTQ with numbers of their own for some modules (dynamic)")
    return GptqScheme(bits, group_size, is_symmetric, zero_offset=1 if form == "gptq" else 0)


def _float8(config: Metadata) -> Scheme:
    form = config.text(f"{_KEY}.fmt", default="e4m3")
    scales = config.text(f"{_KEY}.scale_fmt", default="float")
    experts = config.text(f"{_KEY}.expert_dtype", default="fp8")
    if (form, scales, experts) != ("e4m3", "float", "fp8"):
        _refuse(config, f"FP8 as {form[:16]!r} with scales as {scales[:16]!r} and experts as {experts[:16]!r}")
    return Float8Scheme(_block(config, f"{_KEY}.weight_block_size"))


def _compressed(config: Metadata) -> Scheme:
    sparsity = config.text(f"{_KEY}.sparsity_config.format", default="dense")
    if sparsity != "dense":
        _refuse(config, f"compressed-tensors with sparse weights ({sparsity[:32]!r})")
    if any(key.startswith(f"{_KEY}.transform_config.") for key in config.values):
        _refuse(config, "compressed-tensors with transformed activations (transform_config)")
    groups = _groups(config)
    for form in (f"{_KEY}.format", *(f"{group}.format" for group in groups)):
        name = config.text(form, default="mixed-precision")
        if name not in _COMPRESSED_FORMATS:
            _refuse(config, f"compressed-tensors in the format {name[:32]!r}")
    return CompressedScheme(frozenset(_weight_scheme(config, f"{group}.weights") for group in groups))


def _groups(config: Metadata) -> list[str]:
    """The keys of the groups of modules whose weights are quantised."""
    prefix, separator = f"{_KEY}.config_groups.", ".weights."
    keys = [key for key in config.values if key.startswith(prefix) and separator in key]
    groups = sorted({key.partition(separator)[0] for key in keys})
    if not 0 < len(groups) <= _MAX_SCHEMES:
        config.fail(prefix[:-1], f"expected 1 to {_MAX_SCHEMES} groups with weights, found {len(groups)}")
    return groups


def _weight_scheme(config: Metadata, group: str) -> WeightScheme:
    bits, kind = config.integer(f"{group}.num_bits"), config.text(f"{group}.type", default="int")
    group_size = _group_size(config, f"{group}.group_size")
    strategy = config.text(f"{group}.strategy", default="channel" if group_size is None else "group")
    if (kind, bits) not in (("int", 4), ("int", 8), ("float", 8)):
        _refuse(config, f"compressed-tensors with {bits} bits of type {kind[:16]!r}")
    if kind == "float" and strategy == "block":
        return WeightScheme(bits, True, None, _block(config, f"{group}.block_structure"))
    if kind == "float" and strategy in ("tensor", "channel"):
        return WeightScheme(bits, True, None)
    if kind == "int" and strategy in ("tensor", "channel"):
        return WeightScheme(bits, False, None)
    if kind != "int" or strategy != "group" or group_size is None:
        _refuse(config, f"compressed-tensors with {kind} weights and a scale for each {strategy[:16]!r}")
    return WeightScheme(bits, False, group_size)


def _group_size(config: Metadata, key: str) -> int | None:
    """None where a whole row shares a scale, which files write as -1, or leave out."""
    size = config.integer(key, default=-1, minimum=-1, maximum=MAX_WIDTH)
    if size == 0:
        config.fail(key, "a group of no columns makes no sense")
    return None if size == -1 else size


def _block(config: Metadata, key: str) -> tuple[int, int] | None:
    """Rows and columns of a block."""
    if key not in config:
        return None
    sizes = config.array(key)
    if len(sizes) != 2 or not all(type(size) is int and 0 < size <= MAX_WIDTH for size in sizes):
        config.fail(key, "expected the rows and columns of a block")
    return int(str(sizes[0])), int(str(sizes[1]))


_READERS: Mapping[str, Callable[[Metadata], Scheme]] = {
    "awq": _awq,
    "gptq": _gptq,
    "fp8": _float8,
    "fbgemm_fp8": _float8,
    "compressed-tensors": _compressed,
}
