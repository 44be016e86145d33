"""What a server loads before it is ready: start-up is mostly imports, so nothing is imported that is not used."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path

UNUSED = (
    "torch",
    "triton",
    "onnxruntime",
    "transformers",
    "gguf",
    "huggingface_hub",
    "httpx",
    "httpx2",
    "cryptography",
    "sentencepiece",
    "layerscale_core.conformance",
    "layerscale_server.bench",
    "layerscale_server.hub.pull",
)
"""What a GGUF file with a byte-level vocabulary is served without, on the CPU, from disk and without a licence key."""


def modules_until_ready(model: Path) -> set[str]:
    """The names of all modules that ``layerscale --model`` imports before it says that it is ready."""
    command = [sys.executable, "-X", "importtime", "-m", "layerscale_server", "--model", str(model)]
    with subprocess.Popen(
        [*command, "--backend", "cpu", "--host", "127.0.0.1", "--port", "0"], stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        try:
            lines = list(itertools.takewhile(lambda line: "ready on " not in line, process.stderr))
            assert process.poll() is None, lines[-1]
        finally:
            process.kill()
    return {line.rpartition("|")[2].strip() for line in lines if line.startswith("import time:")}


def test_a_server_is_ready_without_what_it_does_not_use(tiny_model_path: Path) -> None:
    loaded = modules_until_ready(tiny_model_path)
    assert {"layerscale_server.http.process", "layerscale_backend_cpu.native_executor", "fastapi"} <= loaded
    assert {
        name for name in loaded if name.startswith(tuple(f"{unused}." for unused in UNUSED)) or name in UNUSED
    } == set()
