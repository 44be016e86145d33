"""The documented examples do what they say, against a server with a tiny random model."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from examples.demo.server_process import ServerProcess
from layerscale_core import builtin
from layerscale_core.conformance import SchedulerPolicyContract
from layerscale_core.plugins import PluginRegistry
from layerscale_core.specs import SchedulerPolicy
from tests.support.documentation import PAGES, code_blocks

pytestmark = pytest.mark.xdist_group("documented examples")  # one server for all of them

DOCUMENTED_URL = "http://localhost:8080"
GENERATED_TOKENS = "layerscale_generated_tokens_total"


@pytest.fixture(scope="module")
def url(tiny_model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server."""
    command = [sys.executable, "-m", "layerscale_server", "--model", str(tiny_model_path), "--port", "0"]
    server = ServerProcess(command, tmp_path_factory.mktemp("examples") / "server.log")
    try:
        server.start()
        yield server.url
    finally:
        server.stop()


def pages_with(language: str, words: str) -> list[Path]:
    """The pages that have a block of this language with these words in it."""
    return [page for page in PAGES if any(words in block for block in code_blocks(page, language))]


def generated_tokens(url: str) -> float:
    """How many tokens the server has generated."""
    families = text_string_to_metric_families(httpx.get(f"{url}/metrics").text)
    return sum(sample.value for family in families for sample in family.samples if sample.name == GENERATED_TOKENS)


@pytest.mark.parametrize(
    "page",
    [page for sdk in ("openai", "anthropic", "layerscale") for page in pages_with("python", f"from {sdk} import")],
    ids=str,
)
def test_the_examples_with_a_client_run(page: Path, url: str) -> None:
    code = "\n".join(block for block in code_blocks(page, "python")).replace(DOCUMENTED_URL, url)
    before = generated_tokens(url)
    result = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert generated_tokens(url) > before  # a random model's words may all be blank


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize("page", pages_with("sh", "curl "), ids=str)
def test_the_examples_with_curl_run(page: Path, url: str) -> None:
    environment = dict(os.environ)
    for block in code_blocks(page, "sh"):
        if "curl " in block:
            command = block.replace("curl ", "curl --silent --fail-with-body ").replace(DOCUMENTED_URL, url)
            result = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False, env=environment)
            assert result.returncode == 0, result.stdout + result.stderr
            answer = json.loads(result.stdout)
            assert answer.keys() & {"choices", "session_id", "pushed", "text"}
            environment["SESSION"] = answer.get("session_id", environment.get("SESSION", ""))


@pytest.fixture(scope="module")
def plugin_of_the_guide() -> ModuleType:
    """The complete plugin on the page about plugins."""
    plugin = ModuleType("one_token_each")
    exec(compile(code_blocks("docs/plugins.md", "python")[0], "docs/plugins.md", "exec"), vars(plugin))
    return plugin


def test_the_plugin_of_the_guide_is_accepted_and_comes_before_the_built_in_one(plugin_of_the_guide: ModuleType) -> None:
    registry = PluginRegistry()
    assert registry.register(builtin, "builtin", "layerscale-engine").cause is None
    assert registry.register(plugin_of_the_guide, "one-token-each", "documentation").cause is None
    assert isinstance(registry.make_scheduler_policy(), plugin_of_the_guide.OneTokenEach)


class TestPluginOfTheGuide(SchedulerPolicyContract):
    """It keeps every promise of a scheduler policy."""

    @pytest.fixture
    def policy(self, plugin_of_the_guide: ModuleType) -> SchedulerPolicy:
        policy: SchedulerPolicy = plugin_of_the_guide.layerscale_make_scheduler_policy()
        return policy
