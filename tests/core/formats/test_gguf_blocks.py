"""Every encoding, against the formulas of the ``gguf`` package, bit for bit."""

from __future__ import annotations

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType as GgmlTypeId
from hypothesis import given, settings
from hypothesis import strategies as st

from layerscale_core.formats.gguf.ggml_types import GGML_TYPES, UNSUPPORTED_TYPES, GgmlType
from layerscale_core.models import DenseMatrix, Matrix, QuantizedMatrix
from tests.support.tiny_gguf import random_blocks

# (bits, group size, zero, has minima)
LAYOUTS = {
    "Q4_0": (4, 32, 8, False),
    "Q4_1": (4, 32, 0, True),
    "Q5_0": (6, 32, 16, False),
    "Q5_1": (6, 32, 0, True),
    "Q8_0": (8, 32, 128, False),
    "Q2_K": (4, 16, 0, True),
    "Q3_K": (4, 16, 4, False),
    "Q4_K": (4, 32, 0, True),
    "Q5_K": (6, 32, 0, True),
    "Q6_K": (6, 16, 32, False),
    "IQ2_XXS": (4, 32, 128, False),
    "IQ3_XXS": (4, 32, 128, False),
    "IQ3_S": (4, 32, 128, False),
    "TQ1_0": (4, 32, 1, False),
    "TQ2_0": (4, 32, 1, False),
    "MXFP4": (4, 32, 128, False),
    "IQ4_NL": (4, 32, 128, False),
    "IQ4_XS": (4, 32, 128, False),
}
DENSE = ("F32", "F16", "BF16")
TYPES = {ggml_type.name: ggml_type for ggml_type in GGML_TYPES.values()}


def random_rows(name: str, rows: int, blocks_per_row: int, seed: int = 0) -> np.ndarray:
    """uint8 [rows, bytes of a row]; a dense type has rows of 32 elements for each block asked for."""
    blocks_per_row *= 32 if name in DENSE else 1
    blocks = random_blocks(np.random.default_rng(seed), name, rows * blocks_per_row)
    return blocks.view(np.uint8).reshape(rows, -1)


def expected(raw: np.ndarray, name: str) -> np.ndarray:
    return gguf.quants.dequantize(raw, GgmlTypeId[name])


def bits(values: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(values).view(np.uint32)


def test_every_type_of_ggml_is_either_read_or_known_by_name() -> None:
    names = {type_id: ggml_type.name for type_id, ggml_type in GGML_TYPES.items()} | UNSUPPORTED_TYPES
    assert names == {int(known): known.name for known in GgmlTypeId}
    assert set(TYPES) == {*LAYOUTS, *DENSE}


@pytest.mark.parametrize("name", TYPES)
def test_block_sizes_agree_with_ggml(name: str) -> None:
    assert (TYPES[name].block_size, TYPES[name].block_bytes) == gguf.GGML_QUANT_SIZES[GgmlTypeId[name]]


@pytest.mark.parametrize("name", TYPES)
@given(rows=st.integers(1, 9), blocks_per_row=st.integers(1, 5), seed=st.integers(0, 2**32))
@settings(max_examples=15, deadline=None)
def test_dequantizes_bit_for_bit_as_ggml_does(name: str, rows: int, blocks_per_row: int, seed: int) -> None:
    raw = random_rows(name, rows, blocks_per_row, seed)
    weights = TYPES[name].read(raw).dequantize()
    assert weights.dtype == np.float32
    np.testing.assert_array_equal(bits(weights), bits(expected(raw, name)))


@pytest.mark.parametrize("name", LAYOUTS)
def test_quantised_types_fill_their_internal_layout(name: str) -> None:
    matrix = TYPES[name].read(random_rows(name, 64, 4))
    assert isinstance(matrix, QuantizedMatrix)
    num_bits, group_size, zero, has_mins = LAYOUTS[name]
    assert (matrix.bits, matrix.group_size, matrix.zero) == (num_bits, group_size, zero)
    assert (matrix.mins is not None) == has_mins
    assert (matrix.codebook is not None) == name.startswith(("IQ", "MX"))
    rows, cols = 64, 4 * TYPES[name].block_size
    assert matrix.shape == (rows, cols)
    assert matrix.codes.dtype == np.uint8
    assert matrix.codes.max() < 2**num_bits
    for groups in (matrix.scales, matrix.mins):
        assert groups is None or (groups.dtype == np.float32 and groups.shape == (rows, cols // group_size))


@pytest.mark.parametrize(("name", "dtype"), [("F32", np.float32), ("F16", np.float16), ("BF16", np.uint16)])
def test_dense_types_keep_their_bits(name: str, dtype: type[np.generic]) -> None:
    raw = random_rows(name, 3, 2)
    matrix = TYPES[name].read(raw)
    assert isinstance(matrix, DenseMatrix)
    assert matrix.data.dtype == dtype
    assert matrix.data.tobytes() == raw.tobytes()


@pytest.mark.parametrize("name", TYPES)
def test_what_is_read_shares_no_memory_with_the_file(name: str) -> None:
    raw = random_rows(name, 4, 2)
    for array in arrays(TYPES[name].read(raw)):
        assert not np.shares_memory(array, raw)
        assert array.flags.c_contiguous
        assert array.flags.writeable


@pytest.mark.parametrize("name", TYPES)
def test_no_rows_give_an_empty_matrix(name: str) -> None:
    raw = random_rows(name, 1, 2)[:0]
    matrix = TYPES[name].read(raw)
    assert matrix.shape == (0, elements_per_row(TYPES[name], raw))
    assert matrix.dequantize().shape == matrix.shape


def elements_per_row(ggml_type: GgmlType, raw: np.ndarray) -> int:
    return raw.shape[1] // ggml_type.block_bytes * ggml_type.block_size


def arrays(matrix: Matrix) -> list[np.ndarray]:
    if isinstance(matrix, DenseMatrix):
        return [matrix.data]
    return [array for array in (matrix.codes, matrix.scales, matrix.mins, matrix.codebook) if array is not None]
