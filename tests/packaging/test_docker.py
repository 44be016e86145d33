"""The images keep their promises, as far as that shows without a container engine."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from examples.demo.server_process import ServerProcess
from layerscale_server.settings import Settings
from tests.support.dockerfile import EnginelessBuild, Instruction, context_files, read_dockerfile, stages
from tests.support.documentation import ROOT, read

VENDORS = ("cpu", "cuda", "rocm")
STEPS_VARIABLE = "LAYERSCALE_TEST_DOCKER_STEPS"
PAGE = "docs/docker.md"


def dockerfile(vendor: str) -> Path:
    return ROOT / "docker" / vendor / "Dockerfile"


@pytest.fixture(params=VENDORS)
def vendor(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def image(vendor: str) -> list[Instruction]:
    """The last stage: what is shipped."""
    return stages(read_dockerfile(dockerfile(vendor)))[-1]


def value_of(image: list[Instruction], name: str) -> str:
    [found] = [instruction.value for instruction in image if instruction.name == name]
    return found


def test_every_vendor_has_one() -> None:
    assert sorted(path.parent.name for path in ROOT.glob("docker/*/Dockerfile")) == sorted(VENDORS)


@pytest.mark.skipif(shutil.which("hadolint") is None, reason="hadolint is not installed (extra lint)")
def test_the_linter_has_nothing_to_say(vendor: str) -> None:
    command = ["hadolint", "--config", str(ROOT / "docker" / "hadolint.yaml"), str(dockerfile(vendor))]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout


def test_flags_follow_the_images_name(image: list[Instruction]) -> None:
    assert next(each for each in image if each.name == "ENTRYPOINT").command() == ["layerscale"]
    assert not [each for each in image if each.name == "CMD"]
    assert value_of(image, "EXPOSE") == str(Settings(model="any").port)


def test_runs_as_nobody_in_particular(image: list[Instruction]) -> None:
    user = value_of(image, "USER")
    assert int(user) >= 10_000
    after = image[[each.name for each in image].index("USER") :]
    assert not [each for each in after if each.name in {"RUN", "COPY", "ADD"}]
    [accounts] = [each.value for each in image if "useradd" in each.value]
    assert f"--uid {user} " in accounts
    for folder in re.findall(r'"(/\w+)"', value_of(image, "VOLUME")):
        assert re.search(rf"--owner=layerscale .*{folder}\b", accounts)


def test_compiler_sources_and_caches_stay_behind(vendor: str) -> None:
    build, image = stages(read_dockerfile(dockerfile(vendor)))
    assert [each.value for each in image if each.name == "COPY"] == ["--from=build /opt/layerscale /opt/layerscale"]
    for stage in (build, image):
        assert stage[0].value.startswith("python:${PYTHON}")  # equal, or the environment would not find its interpreter
        for run in (each.value for each in stage if each.name == "RUN"):
            assert ("apt-get" in run) == run.endswith("rm -rf /var/lib/apt/lists/*")
            assert ("pip" in run) == ("--no-cache-dir" in run)
    installed = " ".join(each.value for each in image if "apt-get" in each.value)
    assert "g++" not in installed
    assert ("gcc" in installed) == (vendor != "cpu")  # Triton compiles launchers while it runs


def test_images_differ_where_their_vendors_do_and_nowhere_else() -> None:
    """A Dockerfile cannot include another: what all three need is in each."""
    lines = {vendor: [line.rstrip(" \\") for line in dockerfile(vendor).read_text().splitlines()] for vendor in VENDORS}
    for vendor in ("cuda", "rocm"):
        others = [line for line in lines["cpu"] if line not in lines[vendor]]
        assert all(re.search(r"cpu|onnx|:latest|on the CPU", line) for line in others), others


def test_torch_for_rocm_comes_from_its_own_index_alone(vendor: str) -> None:
    """Beside PyPI, pip would take whichever version is higher: a build for CUDA."""
    text = dockerfile(vendor).read_text()
    assert "--extra-index-url" not in text
    assert ('--index-url "${TORCH_INDEX}" "torch>=2.9"' in text) == (vendor == "rocm")


def test_installs_an_extra_that_exists(vendor: str) -> None:
    text = dockerfile(vendor).read_text()
    [extra] = re.findall(r'"/src\[(\w+)\]"', text)
    assert extra in tomllib.loads(read("pyproject.toml"))["project"]["optional-dependencies"]
    assert extra == {"cpu": "onnx"}.get(vendor, vendor)


def test_downloads_go_where_a_volume_is(image: list[Instruction]) -> None:
    environment = value_of(image, "ENV")
    assert "HF_HOME=/cache/huggingface" in environment
    assert '"/cache"' in value_of(image, "VOLUME")
    assert value_of(image, "WORKDIR") == "/cache"


@pytest.mark.parametrize("status", [200, 503])
def test_the_health_check_tells_ready_from_not(image: list[Instruction], status: int) -> None:
    class Health(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/health" else 500)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Health) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        assert (health_check(image, server.server_port) == 0) == (status == 200)
        server.shutdown()
        thread.join()
        port = server.server_port
    assert health_check(image, port) != 0, "nobody is there any more"


def health_check(image: list[Instruction], port: int) -> int:
    """The exit code of the image's check, of a server on another port than the image's."""
    check = next(each for each in image if each.name == "HEALTHCHECK")
    assert re.match(r"--interval=\d+s --timeout=\d+s --start-period=\d+m --retries=\d+ CMD \[", check.value)
    python, *arguments = (word.replace(":8080/", f":{port}/") for word in check.command())
    assert python == "python"
    return subprocess.run([sys.executable, *arguments], capture_output=True, check=False).returncode


def test_nothing_but_the_packages_is_sent_to_a_build() -> None:
    files = set(context_files(ROOT))
    assert {"pyproject.toml", "setup.py", "README.md", "LICENSE"} <= {str(path) for path in files}
    assert Path("layerscale_core/py.typed") in files
    assert Path("layerscale_backend_cpu/native/module.cpp") in files
    folders = {path.parts[0] for path in files if len(path.parts) > 1}
    assert all(folder.startswith("layerscale_") for folder in folders), folders
    assert not [path for path in files if path.suffix in {".so", ".pyc"} or ".git" in path.parts]


def test_the_page_shows_what_the_files_say() -> None:
    page = read(PAGE)
    for vendor in VENDORS:
        [build_line] = re.findall(r"#   (docker build .*)", dockerfile(vendor).read_text())
        assert build_line in page
        tag = re.search(r"-t (\S+)", build_line)
        assert tag is not None
        assert re.search(rf"docker run .*{tag[1]} --model", page.replace("\\\n", ""))


@pytest.mark.skipif(STEPS_VARIABLE not in os.environ, reason="downloads and compiles: python -m nox -s docker_steps")
@pytest.mark.timeout(1800)
def test_the_steps_for_the_cpu_give_a_server_that_is_healthy(tmp_path: Path, tiny_model_path: Path) -> None:
    build = EnginelessBuild(tmp_path)
    image = build.run(dockerfile("cpu"))
    assert not (tmp_path / "src").exists()
    assert len(build.left_out) == 5, build.left_out
    entry_point = [*build.in_image(), *image["ENTRYPOINT"].command()]
    server = ServerProcess([*entry_point, "--model", str(tiny_model_path), "--port", "0"], tmp_path / "server.log")
    try:
        server.start()
        port = int(server.url.rpartition(":")[2])
        check = [word.replace(":8080/", f":{port}/") for word in image["HEALTHCHECK"].command()]
        assert subprocess.run([*build.in_image(), *check], check=False, timeout=30).returncode == 0
        assert "not compiled" not in server.log()
    finally:
        assert server.stop() == 0
