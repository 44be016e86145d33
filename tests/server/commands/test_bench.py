"""``layerscale bench``, each mode from end to end on a tiny model: what is counted, never how long it took."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from layerscale_core.plugins import PluginRegistry
from layerscale_server.bench.errors import BenchmarkError
from layerscale_server.bench.stream_arms import NUM_SLIDES, NUM_STORED
from layerscale_server.cli import cli
from layerscale_server.settings import LICENSE_KEY_VARIABLE
from tests.support.license_authority import LicenseAuthority
from tests.support.server_process import ServerProcess
from tests.support.small_backend import SmallBackend
from tests.support.tiny_gguf import write_tiny_llama

pytestmark = pytest.mark.xdist_group("bench")  # one server for all of them


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_llama(tmp_path_factory.mktemp("models") / "roomy.gguf", context=4096)


@pytest.fixture(scope="module")
def url(model: Path) -> Iterator[str]:
    with ServerProcess(model) as server:
        yield server.wait_until_ready().address


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["bench", *map(str, arguments)], catch_exceptions=False)


def report_of(tmp_path: Path, *arguments: object) -> dict[str, Any]:
    """The JSON report of a run that also draws a picture."""
    path, picture = tmp_path / "report.json", tmp_path / "picture.svg"
    result = run(*arguments, "--json", path, "--plot", picture)
    assert result.exit_code == 0, result.output
    ET.parse(picture)
    report: dict[str, Any] = json.loads(path.read_text())
    assert report.keys() >= {"date", "command", "machine", "versions", "setting", "samples"}
    assert report["versions"]["layerscale"]
    return report


def test_rates_are_of_all_sequences_while_all_run(model: Path, tmp_path: Path) -> None:
    sizes = ("--depths", "0,100", "--batches", "1,3", "--prompt-tokens", 64, "--output-tokens", 12)
    report = report_of(tmp_path, "rates", "--model", model, *sizes, "--repetitions", 2)
    samples = report["samples"]
    assert len(samples) == 2 * (2 * 2 + 2 * 2)
    for sample in samples:
        assert sample["seconds"] > 0
        if sample["what"] == "decode":
            assert sample["num_tokens"] == sample["batch_size"] * (12 - 1)
        else:
            assert 64 <= sample["num_tokens"] / sample["batch_size"] <= 64 + 16
    assert {figure["what"] for figure in report["figures"] if figure["bandwidth_share"]} == {"decode"}
    assert report["setting"]["copy_bandwidth_bytes_per_s"] > 0


def test_rates_that_memory_cannot_hold_are_refused_with_numbers(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = PluginRegistry.discover()
    registry.register(SmallBackend(4 << 20), "small", "test 1.0")
    monkeypatch.setattr(PluginRegistry, "discover", lambda: registry)
    with pytest.raises(BenchmarkError, match=r"sequences of .* tokens at once, not 64 of 2624"):
        run("rates", "--model", model, "--backend", "small", "--batches", 64)


def test_serving_counts_every_request(model: Path, url: str, tmp_path: Path) -> None:
    lengths = ("--prompt-tokens", 60, "--output-tokens", 8)
    report = report_of(
        tmp_path, "serving", "--url", url, "--requests", 9, "--rate", 100, *lengths, "--slo-ttft", 60_000
    )
    assert len(report["samples"]) == report["summary"]["num_requests"] == 9
    assert report["summary"]["goodput"] == 1.0
    for sample in report["samples"]:
        assert sample["error"] is None
        assert sample["piece_times_s"] == sorted(sample["piece_times_s"])
        assert 4 <= sample["num_output_tokens"] <= 12
        assert 20 <= sample["num_prompt_tokens"] <= 110


def test_serving_starts_a_server_and_counts_its_refusals(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = LicenseAuthority(tmp_path)
    for name, value in {**authority.environment, LICENSE_KEY_VARIABLE: authority.issue()}.items():
        monkeypatch.setenv(name, value)
    sizes = ("--context", 256, "--prompt-tokens", 240, "--length-spread", 0.9, "--output-tokens", 4)
    load = ("--requests", 12, "--rate", 200, "--api", "chat")
    report = report_of(tmp_path, "serving", "--model", model, *load, *sizes)
    refused = [sample for sample in report["samples"] if sample["error"]]
    assert 0 < len(refused) < 12
    assert all("answered 400" in sample["error"] for sample in refused)
    assert sum(report["summary"]["errors"].values()) == len(refused)
    assert report["summary"]["goodput"] == pytest.approx(1 - len(refused) / 12)


def test_streams_ask_a_session_for_the_question_alone(url: str, tmp_path: Path) -> None:
    sizes = ("--sizes", "12,30", "--window", 15, "--rate", 200, "--repetitions", 1)
    samples = report_of(tmp_path, "streams", "--url", url, *sizes)["samples"]
    of_arm = {
        name: [sample for sample in samples if sample["arm"] == name] for name in (each["arm"] for each in samples)
    }
    assert {name: len(each) for name, each in of_arm.items()} == {
        "append-only": 2,
        "sliding window": NUM_SLIDES,
        "registered, any moment": 2,
        "registered, fresh": 2 * NUM_STORED,
    }
    asked = of_arm["append-only"] + of_arm["sliding window"]
    (question_len,) = {sample["query"]["num_prefilled"] for sample in asked}
    assert 0 < question_len < 20
    assert {sample["query"]["num_prefilled"] for sample in of_arm["registered, fresh"]} == {0}
    assert all(sample["query"]["is_stored"] for sample in of_arm["registered, fresh"])


def test_streams_that_a_context_cannot_hold_are_refused(url: str) -> None:
    with pytest.raises(BenchmarkError, match=r"holds \d+ of \d+ entries, for its context is 4096 tokens"):
        run("streams", "--url", url, "--sizes", 200, "--rate", 10_000)


@pytest.mark.parametrize("mode", ["serving", "streams"])
def test_a_server_that_does_not_answer_is_one_line(mode: str) -> None:
    with pytest.raises(BenchmarkError, match=r"http://127\.0\.0\.1:9/v1/.*Connect"):
        run(mode, "--url", "http://127.0.0.1:9")


def test_a_model_that_does_not_load_says_why(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match="the server did not start: no file or directory"):
        run("streams", "--model", tmp_path / "none.gguf")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["rates"], "--model is missing"),
        (["rates", "--model", "m", "--batches", "1,x"], "is no list of whole numbers"),
        (["rates", "--model", "m", "--batches", "0"], "0 is less than 1"),
        (["serving"], "name a server with --url or a model with --model, and not both"),
        (["streams", "--url", "http://h", "--model", "m"], "and not both"),
        (["serving", "--url", "http://h", "--key-variable", "NO_SUCH_VARIABLE"], "NO_SUCH_VARIABLE is not set"),
        (["serving", "--url", "http://h", "--rate", "0"], "--rate"),
        (["streams", "--url", "http://h", "--sizes", "10"], "10 is less than 11"),
    ],
)
def test_wrong_usage_is_told(arguments: list[str], words: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert words in result.output
