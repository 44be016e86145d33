"""The example plugins, each installed as a user would install it, into a folder of its own."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="session")
def simulated_gpu_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the simulated GPU's project."""
    return copy_project("simulated_gpu", tmp_path_factory)


@pytest.fixture(scope="session")
def simulated_gpu_site(simulated_gpu_source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder to put on the path, with the simulated GPU installed in it."""
    return install(simulated_gpu_source, tmp_path_factory)


@pytest.fixture(scope="session")
def weather_stream_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the weather stream's project."""
    return copy_project("weather_stream", tmp_path_factory)


@pytest.fixture(scope="session")
def weather_stream_site(weather_stream_source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder to put on the path, with the weather stream installed in it."""
    return install(weather_stream_source, tmp_path_factory)


def copy_project(name: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of an example's project: building leaves files behind."""
    copy = tmp_path_factory.mktemp("source") / name
    shutil.copytree(EXAMPLES / name, copy, ignore=shutil.ignore_patterns("build", "*.egg-info", "__pycache__"))
    return copy


def install(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the installed package, and the metadata that entry points are read from."""
    site = tmp_path_factory.mktemp("site")
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check", "--target", str(site)]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, str(source)], check=True, capture_output=True)
    return site
