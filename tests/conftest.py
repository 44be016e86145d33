"""Fixtures that several parts of the suite share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.tiny_gguf import write_tiny_llama


@pytest.fixture(scope="session")
def tiny_model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random llama of two layers in F32."""
    return write_tiny_llama(tmp_path_factory.mktemp("models") / "tiny.gguf")


@pytest.fixture(scope="session")
def real_model_path() -> Path:
    """SmolLM2-135M-Instruct Q4_1; tests that use it carry the marker ``model``."""
    path = os.environ.get("LAYERSCALE_TEST_MODEL")
    if not path:
        pytest.skip("LAYERSCALE_TEST_MODEL does not name the SmolLM2 model file")
    return Path(path)


@pytest.fixture(scope="session")
def gemma_model_path() -> Path:
    """Gemma 3 270M Q4_K_M; tests that use it carry the marker ``model``."""
    path = os.environ.get("LAYERSCALE_TEST_GEMMA")
    if not path:
        pytest.skip("LAYERSCALE_TEST_GEMMA does not name the Gemma 3 model file")
    return Path(path)
