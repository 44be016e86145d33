"""Damaged files: whatever happens to the bytes, a model opens and reads, or one typed line says why not.

``LAYERSCALE_FUZZ_ROUNDS`` sets the number of damaged files; the seed of each is its number, named when it fails.
"""

from __future__ import annotations

import os
import random
import tracemalloc
from pathlib import Path

import pytest

from layerscale_core.errors import ModelFileError, UnsupportedModelError
from layerscale_core.formats import GgufFormat, open_model
from layerscale_core.formats.gguf.reader import read_header
from tests.support.tiny_gguf import write_tiny_llama

ROUNDS = int(os.environ.get("LAYERSCALE_FUZZ_ROUNDS", "600"))
MAX_PEAK_BYTES = 16 * 2**20
EXTREMES = (0, 1, 2, 9, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**61, 2**63 - 1, 2**63, 2**64 - 1)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A whole model in 50 KB."""
    path = tmp_path_factory.mktemp("fuzz") / "tiny.gguf"
    write_tiny_llama(path, layers=1, hidden=32, heads=2, kv_heads=1, intermediate=32, encoding="F16")
    return path.read_bytes()


@pytest.fixture(scope="module")
def header_len(model: bytes) -> int:
    return min(tensor.offset for tensor in read_header(model, "tiny.gguf").tensors.values())


def damage(model: bytes, header_len: int, rng: random.Random) -> bytes:
    """One to four injuries, nearly all of them in the header."""
    data = bytearray(model)
    for _ in range(rng.randint(1, 4)):
        # The first kilobyte holds the counts and the model's keys, the last the tensor table; tokens lie between.
        at = rng.choice([rng.randrange(header_len), rng.randrange(1024), header_len - 1 - rng.randrange(1024)])
        match rng.randrange(6):
            case 0:
                data[at] ^= 1 << rng.randrange(8)
            case 1:
                data[at] = rng.randrange(256)
            case 2:
                data[at : at + 8] = rng.choice(EXTREMES).to_bytes(8, "little")
            case 3:
                data[at : at + 4] = (rng.choice(EXTREMES) % 2**32).to_bytes(4, "little")
            case 4:
                del data[at : at + rng.randint(1, 40)]
            case 5:
                data[at:at] = data[rng.randrange(header_len) :][: rng.randint(1, 40)]
    return bytes(data[: rng.randrange(len(data) + 1)] if rng.random() < 0.1 else data)


def open_and_read(path: Path) -> str | None:
    """Open a model and read every weight of it; or return the line that says why not."""
    try:
        model = open_model(path, [GgufFormat()])
    except (ModelFileError, UnsupportedModelError) as error:
        return str(error)
    for name in model.weights.names():
        read = model.weights.matrix if len(model.weights.shape(name)) == 2 else model.weights.vector
        read(name)
    model.close()
    return None


def test_damaged_files_open_or_end_in_one_typed_line(model: bytes, header_len: int, tmp_path: Path) -> None:
    path = tmp_path / "damaged.gguf"
    refusals: list[str] = []
    tracemalloc.start()
    try:
        for seed in range(ROUNDS):
            path.write_bytes(damage(model, header_len, random.Random(seed)))
            tracemalloc.reset_peak()
            try:
                line = open_and_read(path)
            except Exception as error:
                raise AssertionError(f"damage with seed {seed} escapes") from error
            refusals += [line] if line else []
            assert tracemalloc.get_traced_memory()[1] < MAX_PEAK_BYTES, seed
    finally:
        tracemalloc.stop()
    assert 0 < len(refusals) < ROUNDS
    assert max(map(len, refusals)) < 1000
    assert not any("\n" in line for line in refusals)


def test_every_shortened_file_is_refused(model: bytes, header_len: int, tmp_path: Path) -> None:
    path = tmp_path / "short.gguf"
    lengths = {*range(1, 700), *range(700, header_len, 97), *range(header_len - 50, header_len + 50), len(model) - 1}
    for length in sorted(lengths):
        path.write_bytes(model[:length])
        with pytest.raises(ModelFileError, match="truncated"):
            open_model(path, [GgufFormat()])


def test_a_header_is_whole_or_refused_when_only_metadata_counts(model: bytes, header_len: int, tmp_path: Path) -> None:
    path = tmp_path / "header.gguf"
    for length in (*range(1, header_len, 211), header_len - 33, header_len, header_len + 1, len(model)):
        path.write_bytes(model[:length])
        if length < header_len - 32:  # what is missing then may be padding alone
            with pytest.raises(ModelFileError, match="truncated"):
                GgufFormat().open(path, metadata_only=True)
        else:
            opened = GgufFormat().open(path, metadata_only=True)
            assert opened.size_bytes == len(model)
            opened.close()
