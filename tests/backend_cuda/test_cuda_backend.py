"""The CUDA backend where there is no NVIDIA GPU: found, quick, and precise about what is missing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from layerscale_backend_cuda.driver import find_driver
from layerscale_backend_cuda.plugin import layerscale_backends
from layerscale_backend_cuda.vendor import NVIDIA
from layerscale_core.errors import BackendError
from layerscale_core.specs import BackendOptions


def loaded(name: str) -> None:
    assert name == "libcuda.so.1"


def not_found(name: str) -> None:
    raise OSError(f"{name}: cannot open shared object file:\n No such file")


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """The root of a machine with two GPUs."""
    (tmp_path / "dev").mkdir()
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm"):
        (tmp_path / "dev" / name).touch()
    return tmp_path


def test_a_driver_with_its_devices_is_found(machine: Path) -> None:
    assert find_driver(machine, {}, loaded) == "2 NVIDIA GPUs"


def test_under_windows_the_library_knows_the_devices(tmp_path: Path) -> None:
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev" / "dxg").touch()
    assert find_driver(tmp_path, {}, loaded) == "1 NVIDIA GPU"


def test_without_a_device_nothing_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="no NVIDIA GPU: there is no /dev/nvidia0; a container needs --gpus all"):
        find_driver(tmp_path, {}, pytest.fail)


@pytest.mark.parametrize("value", ["", "-1", " "])
def test_hidden_devices_are_said_to_be_hidden(machine: Path, value: str) -> None:
    with pytest.raises(BackendError, match="CUDA_VISIBLE_DEVICES hides every NVIDIA GPU"):
        find_driver(machine, {"CUDA_VISIBLE_DEVICES": value}, loaded)


def test_a_missing_library_is_one_line(machine: Path) -> None:
    with pytest.raises(BackendError) as error:
        find_driver(machine, {"CUDA_VISIBLE_DEVICES": "0"}, not_found)
    assert str(error.value) == "no NVIDIA driver: libcuda.so.1: cannot open shared object file: No such file"


def test_every_architecture_of_the_last_years_is_tuned() -> None:
    assert list(NVIDIA.tunings) == ["sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120"]
    with pytest.raises(
        BackendError, match="T4 is sm_75; the cuda backend has kernels for sm_80, sm_86, sm_89, sm_90, sm_100, sm_120"
    ):
        NVIDIA.tuning("sm_75", "T4")


def test_asking_for_it_where_it_cannot_serve_is_one_line_on_the_command_line(tiny_model_path: Path) -> None:
    [backend] = layerscale_backends()
    probe = backend.probe()
    if probe.score:
        pytest.skip("there is a GPU")
    with pytest.raises(BackendError) as error:
        backend.load(BackendOptions())
    assert str(error.value) == probe.reason
    command = [sys.executable, "-m", "layerscale_server", "--model", str(tiny_model_path), "--backend", "cuda"]
    result = subprocess.run(
        [*command, "--port", "0", "--log-level", "error"], capture_output=True, text=True, check=False
    )
    assert result.returncode == 1
    [line] = result.stderr.splitlines()
    assert line.startswith("layerscale: backend 'cuda' of plugin cuda (layerscale-engine")
    assert line.endswith(f"cannot serve here: {probe.reason}")
