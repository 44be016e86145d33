"""The example plugins, each installed as a user would install it, into a folder of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

VARIABLE = "LAYERSCALE_SIMGPU_MEMORY"
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


@pytest.fixture
def simulated_gpu_environment(simulated_gpu_site: Path) -> Callable[[str | None], dict[str, str]]:
    """Environments of processes that have the plugin installed, with as much simulated memory as is given."""

    def environment(memory: str | None) -> dict[str, str]:
        path = os.pathsep.join(filter(None, [str(simulated_gpu_site), os.environ.get("PYTHONPATH")]))
        inherited = {name: value for name, value in os.environ.items() if name != VARIABLE}
        own = {"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
        return inherited | own | ({} if memory is None else {VARIABLE: memory})

    return environment


@pytest.fixture
def run_python(
    simulated_gpu_environment: Callable[[str | None], dict[str, str]],
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs Python in such a process, to its end."""

    def run(*arguments: str, memory: str | None = None, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *arguments],
            check=False,
            capture_output=True,
            text=True,
            env=simulated_gpu_environment(memory),
            cwd=cwd,
            timeout=120,
        )

    return run
