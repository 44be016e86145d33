"""Repositories of the stand-in hub that hold a folder of safetensors, with what else such repositories hold."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors.numpy import load_file, save

from tests.support.tiny_folder import write_tiny_folder

CLUTTER = {
    "README.md": b"# A model",
    ".gitattributes": b"*.bin filter=lfs",
    "consolidated.safetensors": b"the same once more",
    "modeling_custom.py": b"raise SystemExit('executed')",
    "onnx/model.onnx": b"the same once more",
    "original/consolidated.00.pth": b"the same once more",
    "picture.png": b"PNG",
    "pytorch_model.bin": b"a pickle",
}
"""What no model needs."""


def tiny_repository(folder: Path, *, num_shards: int = 1) -> dict[str, bytes]:
    """The files of a repository with a random llama.

    Args:
        folder: where they are made.
        num_shards: 1 = one file of weights, without an index.
    """
    write_tiny_folder(folder, generation_config={"eos_token_id": 2})
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    if num_shards > 1:
        del files["model.safetensors"]
        files |= _shards(folder / "model.safetensors", num_shards)
    return {**CLUTTER, **files, "special_tokens_map.json": b"{}"}


def _shards(weights: Path, num_shards: int) -> dict[str, bytes]:
    tensors = load_file(weights)
    names = [f"model-{number + 1:05}-of-{num_shards:05}.safetensors" for number in range(num_shards)]
    shard_of = {tensor: names[number % num_shards] for number, tensor in enumerate(sorted(tensors))}
    shards = {
        name: save({tensor: value for tensor, value in tensors.items() if shard_of[tensor] == name}) for name in names
    }
    return {**shards, "model.safetensors.index.json": json.dumps({"weight_map": shard_of}).encode()}
