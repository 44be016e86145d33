"""What is built from the tree installs into a clean environment and serves there, with a compiler and without one."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest
from openai import OpenAI

from examples.demo.server_process import ServerProcess
from layerscale_core.version import __version__
from tests.support.documentation import ROOT

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.xdist_group("distribution"),  # one worker compiles, and the others need not
]

SOURCES = [
    "layerscale_core",
    "layerscale_backend_cpu",
    "layerscale_backend_cuda",
    "layerscale_backend_rocm",
    "layerscale_server",
    "pyproject.toml",
    "setup.py",
    "README.md",
    "LICENSE",
]
PACKAGES = SOURCES[:5]
NATIVE_LEVELS = ["avx2", "avx512", "baseline"] if platform.machine() == "x86_64" else ["baseline"]
NO_COMPILER = {"CC": "/bin/false", "CXX": "/bin/false"}


@dataclass(frozen=True)
class Installation:
    """An environment with the distribution, and a folder outside the source tree to run in."""

    scripts: Path
    folder: Path

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run ``layerscale`` to its end."""
        command = [str(self.scripts / "layerscale"), *arguments]
        return subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=False)

    def serve(self, model: Path) -> ServerProcess:
        """A server on any free port, not started yet."""
        command = [str(self.scripts / "layerscale"), "--model", str(model), "--port", "0"]
        return ServerProcess(command, self.folder / "server.log")


def copy_sources(folder: Path) -> Path:
    """What a checkout holds, without what was built in it."""
    leftovers = shutil.ignore_patterns("__pycache__", *(f"*{suffix}" for suffix in EXTENSION_SUFFIXES))
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=leftovers)
        else:
            shutil.copy(ROOT / name, folder)
    return folder


def take_over_kernels(sources: Path) -> None:
    """Have a build find the kernels that were compiled when this environment was installed, unless a source is newer.

    What is built in place is compiled by the same ``setup.py`` from the same files; it takes the longest of all.
    """
    library = f"lib.{sysconfig.get_platform()}-{sys.implementation.cache_tag}"
    built = sources / "build" / library / "layerscale_backend_cpu"
    built.mkdir(parents=True)
    for kernels in (ROOT / "layerscale_backend_cpu").glob(f"*{EXTENSION_SUFFIXES[0]}"):
        shutil.copy2(kernels, built)


def build_wheel(sources: Path, folder: Path, environment: dict[str, str]) -> Path:
    """A wheel, built with the tools of this environment."""
    command = [sys.executable, "-m", "pip", "wheel", "--no-build-isolation", "--no-deps", "--no-index", "--wheel-dir"]
    subprocess.run(
        [*command, str(folder), str(sources)],
        env={**os.environ, **environment},
        check=True,
        capture_output=True,
    )
    return next(folder.glob("*.whl"))


def install(wheel: Path, folder: Path) -> Installation:
    """A fresh environment with the wheel; its dependencies are read from this environment's packages."""
    environment = folder / "environment"
    venv.create(environment, symlinks=True)
    python = environment / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(pip, check=True, capture_output=True)
    own_packages = next((environment / "lib").glob("python*/site-packages"))
    (own_packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return Installation(environment / "bin", folder)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sources = copy_sources(tmp_path_factory.mktemp("sources"))
    take_over_kernels(sources)
    return build_wheel(sources, tmp_path_factory.mktemp("wheel"), {})


@pytest.fixture(scope="module")
def installation(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installation:
    return install(wheel, tmp_path_factory.mktemp("installation"))


@pytest.fixture(scope="module")
def installation_without_compiler(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    sources = copy_sources(tmp_path_factory.mktemp("plain-sources"))
    wheel = build_wheel(sources, tmp_path_factory.mktemp("plain-wheel"), NO_COMPILER)
    return install(wheel, tmp_path_factory.mktemp("plain-installation"))


def served_completion(server: ServerProcess) -> None:
    """Have it complete a short prompt."""
    client = OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
    model = client.models.list().data[0].id
    completion = client.completions.create(model=model, prompt="hello", max_tokens=4, temperature=0)
    assert completion.usage is not None
    assert completion.usage.completion_tokens > 0


@pytest.fixture
def stopping() -> Iterator[list[ServerProcess]]:
    """Servers put into this list are stopped when the test ends, whatever happens in it."""
    servers: list[ServerProcess] = []
    yield servers
    for server in servers:
        server.stop()


def test_the_wheel_holds_the_packages_with_their_types_and_kernels_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == set(PACKAGES)
    assert {name for name in names if name.endswith("py.typed")} == {f"{package}/py.typed" for package in PACKAGES}
    kernels = {name for name in names if name.endswith(tuple(EXTENSION_SUFFIXES))}
    assert kernels == {f"layerscale_backend_cpu/_native_{level}{EXTENSION_SUFFIXES[0]}" for level in NATIVE_LEVELS}
    assert {Path(name).suffix for name in names if ".dist-info" not in name} == {".py", ".so", ".typed"}
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_the_source_distribution_holds_every_source_of_the_kernels(tmp_path: Path) -> None:
    copy_sources(tmp_path)
    code = "import setuptools.build_meta as backend; backend.build_sdist('built')"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True)
    archive = next((tmp_path / "built").glob("*.tar.gz"))
    with tarfile.open(archive) as content:
        names = {name.split("/", 1)[1] for name in content.getnames() if "/" in name}
    sources = {path.relative_to(ROOT).as_posix() for path in (ROOT / "layerscale_backend_cpu" / "native").iterdir()}
    assert sources <= names


def test_prints_its_version(installation: Installation) -> None:
    assert installation.run("--version").stdout == f"layerscale {__version__}\n"


def test_serves_outside_the_source_tree_and_ends_with_0(
    installation: Installation, tiny_model_path: Path, stopping: list[ServerProcess]
) -> None:
    server = installation.serve(tiny_model_path)
    stopping.append(server)
    server.start()
    served_completion(server)
    assert server.stop() == 0


def test_without_a_compiler_it_installs_and_serves_and_says_at_start_what_is_slow(
    installation_without_compiler: Installation, tiny_model_path: Path, stopping: list[ServerProcess]
) -> None:
    server = installation_without_compiler.serve(tiny_model_path)
    stopping.append(server)
    server.start()
    served_completion(server)
    assert "the native CPU kernels are not compiled" in server.log()


@pytest.mark.parametrize(("fixture", "num_notices"), [("installation", 0), ("installation_without_compiler", 1)])
def test_doctor_says_what_is_slow(request: pytest.FixtureRequest, fixture: str, num_notices: int) -> None:
    installation: Installation = request.getfixturevalue(fixture)
    result = installation.run("doctor", "--json")
    assert result.returncode == 0, result.stderr
    notices = [notice for notice in json.loads(result.stdout)["notices"] if "not compiled" in notice]
    assert len(notices) == num_notices
