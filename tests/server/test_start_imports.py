"""What a server loads before it is ready: start-up is mostly imports, so nothing is imported that is not used."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Iterable
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
    "llguidance",
    "rich",
    "pygments",
    "layerscale_core.conformance",
    "layerscale_server.bench",
    "layerscale_server.hub.pull",
)
"""What a GGUF file with a byte-level vocabulary is served without, on the CPU, from disk and without a licence key."""


def loaded_by(lines: Iterable[str]) -> set[str]:
    """The modules whose import the lines of a log tell of."""
    return {line.rpartition("|")[2].strip() for line in lines if line.startswith("import time:")}


def test_a_server_is_ready_without_what_it_does_not_use(tiny_model_path: Path) -> None:
    command = [sys.executable, "-X", "importtime", "-m", "layerscale_server", "--model", str(tiny_model_path)]
    with subprocess.Popen(
        [*command, "--backend", "cpu", "--host", "127.0.0.1", "--port", "0"], stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        try:
            lines = list(itertools.takewhile(lambda line: "ready on " not in line, process.stderr))
            assert process.poll() is None, lines[-1]
            loaded = loaded_by(lines)
        finally:
            process.kill()
    assert {"layerscale_server.http.process", "layerscale_backend_cpu.native_executor", "fastapi"} <= loaded
    assert {
        name for name in loaded if name.startswith(tuple(f"{unused}." for unused in UNUSED)) or name in UNUSED
    } == set()
