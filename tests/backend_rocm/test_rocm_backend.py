"""The ROCm backend where there is no AMD GPU: found, quick, and precise about what is missing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from layerscale_backend_rocm.driver import NODES, find_driver
from layerscale_backend_rocm.vendor import AMD
from layerscale_core.errors import BackendError


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """The root of a machine with a processor, a GPU, and a node that cannot be read."""
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev" / "kfd").touch()
    for number, content in enumerate(("simd_count 0\ncpu_cores_count 8\n", "simd_count 1216\n", "")):
        node = tmp_path / NODES / str(number)
        node.mkdir(parents=True)
        (node / "properties").write_text(content)
    return tmp_path


def test_a_driver_with_its_devices_is_found(machine: Path) -> None:
    assert find_driver(machine, {}) == "1 AMD GPU"


def test_without_a_driver_the_container_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        BackendError, match="no AMD GPU driver: there is no /dev/kfd; a container needs --device /dev/kfd"
    ):
        find_driver(tmp_path, {})


@pytest.mark.skipif(os.geteuid() == 0, reason="root may open every file")
def test_a_user_who_may_not_is_told_the_groups(machine: Path) -> None:
    (machine / "dev" / "kfd").chmod(0)
    with pytest.raises(BackendError, match="groups render and video"):
        find_driver(machine, {})


def test_a_driver_without_devices_is_no_gpu(machine: Path) -> None:
    (machine / NODES / "1" / "properties").write_text("simd_count 0\n")
    with pytest.raises(BackendError, match="no AMD GPU: the driver lists none"):
        find_driver(machine, {})


@pytest.mark.parametrize("variable", ["HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"])
def test_hidden_devices_are_said_to_be_hidden(machine: Path, variable: str) -> None:
    with pytest.raises(BackendError, match=f"{variable} hides every AMD GPU"):
        find_driver(machine, {variable: ""})


def test_every_architecture_of_the_last_years_is_tuned() -> None:
    assert list(AMD.tunings) == ["gfx90a", "gfx942", "gfx950", "gfx1100"]
