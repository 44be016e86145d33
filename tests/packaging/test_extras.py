"""What the extras ask for can be installed together, also from where torch's builds for CUDA come."""

from __future__ import annotations

import tomllib

from packaging.requirements import Requirement

from tests.support.documentation import read

TRITON_OF_TORCH = {"2.13.0": "3.7.1"}
"""The Triton that PyPI's build of a torch asks for, and no other."""


def requirement_of(extra: str, name: str) -> Requirement:
    listed = tomllib.loads(read("pyproject.toml"))["project"]["optional-dependencies"][extra]
    [found] = [each for each in map(Requirement, listed) if each.name == name]
    return found


def test_the_suites_triton_may_be_the_one_that_its_torch_asks_for() -> None:
    [pinned] = requirement_of("test", "torch").specifier
    assert pinned.operator == "=="
    triton = TRITON_OF_TORCH[pinned.version]
    for extra in ("test", "cuda"):
        assert triton in requirement_of(extra, "triton").specifier, extra


def test_the_gpu_session_leaves_torch_to_the_devices_vendor() -> None:
    noxfile = read("noxfile.py")
    [tools] = [line for line in noxfile.splitlines() if line.startswith("GPU_TOOLS = ")]
    assert "torch" not in tools
    assert "triton" not in tools
    assert '"-e", f".[{vendor}]", *tools' in noxfile
