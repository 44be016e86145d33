"""What the demo runs on: a tiny random model with room for the bars, and bars that wander."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.market_bars import write_bars
from tests.support.tiny_gguf import write_tiny_llama


@pytest.fixture(scope="session")
def roomy_model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_llama(tmp_path_factory.mktemp("models") / "roomy.gguf", context=8192)


@pytest.fixture(scope="session")
def bars_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bars(tmp_path_factory.mktemp("bars") / "bars.csv", num_bars=900)
