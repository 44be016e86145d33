"""The example plugin, installed as a user would install it, into a folder of its own."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "examples" / "simulated_gpu"


@pytest.fixture(scope="session")
def simulated_gpu_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project: building leaves files behind."""
    copy = tmp_path_factory.mktemp("source") / "simulated_gpu"
    shutil.copytree(SOURCE, copy, ignore=shutil.ignore_patterns("build", "*.egg-info", "__pycache__"))
    return copy


@pytest.fixture(scope="session")
def simulated_gpu_site(simulated_gpu_source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder to put on the path: the installed package, with the metadata that entry points are read from."""
    site = tmp_path_factory.mktemp("site")
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check", "--target", str(site)]
    subprocess.run(
        [sys.executable, "-m", "pip", "install", *options, str(simulated_gpu_source)], check=True, capture_output=True
    )
    return site
