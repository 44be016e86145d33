"""Tiny folders with quantised weights, packed here in plain loops, and their twins with the same numbers in floats."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from tests.support.tiny_folder import write_json, write_tiny_folder

Tensors = dict[str, NDArray[Any]]
Pack = Callable[[np.random.Generator, int, int], tuple[Tensors, NDArray[np.float32]]]
"""From a generator and a weight's rows and columns to tensors that hold random ones, and what these say in floats."""

_TYPES = {"f4": "F32", "f2": "F16", "u2": "BF16", "i1": "I8", "u1": "F8_E4M3", "i4": "I32", "i8": "I64"}
AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)


@dataclass(frozen=True)
class Twins:
    """A packed folder, and the one in floats."""

    packed: Path
    floats: Path


def write_twins(
    folder: Path, pack: Pack, config: Mapping[str, object], *, is_packed: Callable[[str], bool] = lambda _: True
) -> Twins:
    """Write both; a head of its own, whose number of rows is no multiple of 8, stays in floats unless ``is_packed``."""
    twins = Twins(folder / "packed", folder / "floats")
    write_tiny_folder(twins.packed, config={"tie_word_embeddings": False, "quantization_config": config})
    write_tiny_folder(twins.floats, config={"tie_word_embeddings": False})
    floats: Tensors = dict(load_file(twins.floats / "model.safetensors"))
    floats["lm_head.weight"] = floats["model.embed_tokens.weight"][::-1].copy()
    packed = dict(floats)
    rng = np.random.default_rng(0)
    for name, values in list(floats.items()):
        if name.endswith(("_proj.weight", "lm_head.weight")) and is_packed(name):
            parts, floats[name] = pack(rng, *values.shape)
            del packed[name]
            packed |= {f"{name.removesuffix('.weight')}.{part}": tensor for part, tensor in parts.items()}
    save(packed, twins.packed / "model.safetensors")
    save(floats, twins.floats / "model.safetensors")
    return twins


def save(tensors: Mapping[str, NDArray[Any]], path: Path) -> None:
    """Write a file of tensors; bytes are 8-bit floats, and 16-bit words bfloat16."""
    entries, data = {}, b""
    for name, tensor in tensors.items():
        content = tensor.tobytes()
        offsets = [len(data), len(data) + len(content)]
        entries[name] = {"dtype": _TYPES[tensor.dtype.str[1:]], "shape": list(tensor.shape), "data_offsets": offsets}
        data += content
    header = json.dumps(entries).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + data)


def load(path: Path) -> Tensors:
    """Read back what ``save`` wrote."""
    content = path.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    elements = {name: element for element, name in _TYPES.items()}
    tensors = {}
    for name, entry in json.loads(content[8:end]).items():
        first, last = (end + offset for offset in entry["data_offsets"])
        tensors[name] = np.frombuffer(content[first:last], elements[entry["dtype"]]).reshape(entry["shape"])
    return tensors


def edit(folder: Path, changes: Mapping[str, object]) -> None:
    """Change keys of a ``quantization_config``; None removes one."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    quantization = {**config["quantization_config"], **changes}
    config["quantization_config"] = {key: value for key, value in quantization.items() if value is not None}
    write_json(path, config)


def shard(folder: Path) -> None:
    """Divide a folder's tensors among three files, the parts of a weight too."""
    tensors = load(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    files = {name: f"part-{number % 3}.safetensors" for number, name in enumerate(sorted(tensors))}
    for file in set(files.values()):
        save({name: tensor for name, tensor in tensors.items() if files[name] == file}, folder / file)
    write_json(folder / "model.safetensors.index.json", {"weight_map": files})


def words(codes: Sequence[int], bits: int, order: Sequence[int] | None = None) -> list[int]:
    """Codes in 32-bit words, the last filled up with zeros.

    Args:
        order: for each place in a word, from the lowest bits, which of its codes is there.
    """
    per_word = 32 // bits
    padded = [*codes, *[0] * (-len(codes) % per_word)]
    result = []
    for start in range(0, len(padded), per_word):
        word = 0
        for place in range(per_word):
            word |= int(padded[start + (order[place] if order else place)]) << (bits * place)
        result.append(word - 2**32 if word >= 2**31 else word)
    return result


def word_array(rows: Sequence[Sequence[int]], bits: int, order: Sequence[int] | None = None) -> NDArray[np.int32]:
    """Each row's codes in words."""
    return np.array([words(row, bits, order) for row in rows], np.int32)


def random_groups(
    rng: np.random.Generator, rows: int, cols: int, bits: int, group_size: int, *, has_zeros: bool
) -> tuple[NDArray[Any], NDArray[np.float16], NDArray[Any], NDArray[np.float32]]:
    """Random codes [rows, cols], scales and zero points [rows, groups], and the weights that they are."""
    groups = np.arange(cols) // group_size
    codes = rng.integers(0, 2**bits, (rows, cols))
    scales = rng.uniform(0.5, 1.5, (rows, groups[-1] + 1)) * (5 / 2**bits) * cols**-0.5
    scales = scales.astype(np.float16)
    zeros = rng.integers(0, 2**bits, scales.shape) if has_zeros else np.full(scales.shape, 2 ** (bits - 1))
    weights = (codes - zeros[:, groups]).astype(np.float32) * scales.astype(np.float32)[:, groups]
    return codes, scales, zeros, weights


def pack_awq(group_size: int) -> Pack:
    def pack(rng: np.random.Generator, rows: int, cols: int) -> tuple[Tensors, NDArray[np.float32]]:
        codes, scales, zeros, weights = random_groups(rng, rows, cols, 4, group_size, has_zeros=True)
        qweight, qzeros = word_array(codes.T, 4, AWQ_ORDER), word_array(zeros.T, 4, AWQ_ORDER)
        return {"qweight": qweight, "qzeros": qzeros, "scales": np.ascontiguousarray(scales.T)}, weights

    return pack


def pack_gptq(bits: int, group_size: int, *, is_symmetric: bool, taken_from_zeros: int = 1) -> Pack:
    def pack(rng: np.random.Generator, rows: int, cols: int) -> tuple[Tensors, NDArray[np.float32]]:
        codes, scales, zeros, weights = random_groups(rng, rows, cols, bits, group_size, has_zeros=not is_symmetric)
        stored = (zeros - taken_from_zeros) % 2**bits
        parts: Tensors = {
            "qweight": np.ascontiguousarray(word_array(codes, bits).T),
            "qzeros": word_array(stored.T, bits),
            "scales": np.ascontiguousarray(scales.T),
            "g_idx": (np.arange(cols) // group_size).astype(np.int32),
        }
        return parts, weights

    return pack


def pack_compressed(bits: int, group_size: int, *, has_zeros: bool = False, zeros_in_words: bool = True) -> Pack:
    def pack(rng: np.random.Generator, rows: int, cols: int) -> tuple[Tensors, NDArray[np.float32]]:
        codes, scales, zeros, weights = random_groups(rng, rows, cols, bits, group_size, has_zeros=has_zeros)
        parts: Tensors = {"weight_packed": word_array(codes, bits), "weight_scale": scales}
        parts["weight_shape"] = np.array([rows, cols], np.int64)
        if has_zeros and zeros_in_words:
            parts["weight_zero_point"] = np.ascontiguousarray(word_array(zeros.T, bits).T)
        elif has_zeros:
            parts["weight_zero_point"] = (zeros - 8).astype(np.int8)
        return parts, weights

    return pack


def pack_bytes(group_size: int) -> Pack:
    def pack(rng: np.random.Generator, rows: int, cols: int) -> tuple[Tensors, NDArray[np.float32]]:
        codes, scales, _, weights = random_groups(rng, rows, cols, 8, group_size, has_zeros=False)
        return {"weight": (codes - 128).astype(np.int8), "weight_scale": scales}, weights

    return pack


def float8(code: int) -> float:
    """What a byte of the type e4m3 says, but for its two codes that are no number."""
    sign, exponent, fraction = code >> 7, code >> 3 & 0xF, code & 7
    size = fraction / 8 * 2.0**-6 if exponent == 0 else (1 + fraction / 8) * 2.0 ** (exponent - 7)
    return -size if sign else size


def pack_float8(scale_shape: Callable[[int, int], tuple[int, ...]], part: str, **others: NDArray[Any]) -> Pack:
    """8-bit floats; powers of two as scales, so that float16 holds every product.

    Args:
        scale_shape: of the scales, from the weight's rows and columns; blocks are of 32 x 32.
        part: the name of the scales.
        others: tensors that say nothing of the weight.
    """

    def pack(rng: np.random.Generator, rows: int, cols: int) -> tuple[Tensors, NDArray[np.float32]]:
        exponents = rng.integers(3, 9, (rows, cols))  # 1/16 to 4
        codes = (rng.integers(0, 2, (rows, cols)) << 7 | exponents << 3 | rng.integers(0, 8, (rows, cols))).astype(
            np.uint8
        )
        shape = scale_shape(rows, cols)
        scales = (2.0 ** rng.integers(-6, -3, shape)).astype(np.float32)
        spread = np.broadcast_to(scales, (1, 1)) if scales.size == 1 else scales.reshape(len(scales), -1)
        block_rows = -(-rows // len(spread))
        block_rows, block_cols = (32, 32) if spread.shape[1] > 1 else (block_rows, cols)
        weights = np.array([[float8(code) for code in row] for row in codes.tolist()], np.float32)
        weights *= spread[np.arange(rows)[:, None] // block_rows, np.arange(cols) // block_cols]
        return {"weight": codes, part: scales, **others}, weights

    return pack
