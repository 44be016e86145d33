"""Damaged folders: whatever happens to the bytes, a model opens and reads, or one typed line says why not.

``LAYERSCALE_FUZZ_ROUNDS`` sets the number of damaged files; the seed of each is its number, named when it fails.
"""

from __future__ import annotations

import os
import random
import re
import tracemalloc
from pathlib import Path

import pytest

from layerscale_core.errors import ModelFileError, UnsupportedModelError
from layerscale_core.formats import SafetensorsFormat, open_model
from tests.support.tiny_folder import read_weights, write_tiny_folder

ROUNDS = int(os.environ.get("LAYERSCALE_FUZZ_ROUNDS", "600"))
MAX_PEAK_BYTES = 16 * 2**20
HEADER_BYTES = 3000
NUMBERS = b'0 1 -1 2.5 1e999 99999999999999999999 2147483648 65536 null true "8" [] {}'.split()
CONFIG = {
    "rope_scaling": {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 256},
    "layer_types": ["full_attention"],
    "sliding_window": 64,
    "head_dim": 16,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_folder(tmp_path_factory.mktemp("fuzz") / "tiny", layers=1, config=CONFIG)


def damage(content: bytes, rng: random.Random) -> bytes:
    """One to four injuries among the first bytes: of bits, bytes, lengths, and of the numbers of JSON."""
    data = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        end = min(len(data), HEADER_BYTES)
        at = rng.randrange(end)
        numbers = [match.span() for match in re.finditer(rb"\d+", bytes(data[:end]))]
        match rng.randrange(6):
            case 0:
                data[at] ^= 1 << rng.randrange(8)
            case 1:
                data[:8] = rng.choice([0, 1, 2**16, 2**32, 2**63, 2**64 - 1]).to_bytes(8, "little")
            case 2 | 3 if numbers:
                start, stop = rng.choice(numbers)
                data[start:stop] = rng.choice(NUMBERS)
            case 4:
                del data[at : at + rng.randint(1, 40)]
            case _:
                data[at:at] = data[rng.randrange(end) :][: rng.randint(1, 40)]
    return bytes(data[: rng.randrange(1, len(data) + 1)] if rng.random() < 0.1 else data)


def open_and_read(folder: Path) -> str | None:
    """Open a folder, read its weights and its tokenizer; or return the line that says why not."""
    try:
        model = open_model(folder, [SafetensorsFormat()])
    except (ModelFileError, UnsupportedModelError) as error:
        return str(error)
    read_weights(model)
    return None


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer_config.json"])
def test_damaged_files_open_or_end_in_one_typed_line(folder: Path, name: str) -> None:
    whole = (folder / name).read_bytes()
    refusals: list[str] = []
    tracemalloc.start()
    try:
        for seed in range(ROUNDS):
            (folder / name).write_bytes(damage(whole, random.Random(seed)))
            tracemalloc.reset_peak()
            try:
                line = open_and_read(folder)
            except Exception as error:
                raise AssertionError(f"damage of {name} with seed {seed} escapes") from error
            refusals += [line] if line else []
            assert tracemalloc.get_traced_memory()[1] < MAX_PEAK_BYTES, seed
    finally:
        tracemalloc.stop()
        (folder / name).write_bytes(whole)
    assert 0 < len(refusals) < ROUNDS
    assert max(map(len, refusals)) < 1000
    assert not any("\n" in line for line in refusals)


def test_a_damaged_tokenizer_is_built_or_refused(folder: Path) -> None:
    path = folder / "tokenizer.json"
    whole = path.read_bytes()
    model = open_model(folder, [SafetensorsFormat()])
    for seed in range(ROUNDS // 6):
        path.write_bytes(damage(whole, random.Random(seed)))
        try:
            model.make_tokenizer().encode("Hello, world!")
        except (ModelFileError, UnsupportedModelError):
            continue
        except Exception as error:
            raise AssertionError(f"damage with seed {seed} escapes") from error
    path.write_bytes(whole)
    model.close()
