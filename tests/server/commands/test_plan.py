"""``layerscale plan``."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from layerscale_backend_cpu import backend as cpu_backend
from layerscale_backend_cpu.native_executor import ISA_VARIABLE, native_isa
from layerscale_core.errors import ModelFileError, OutOfMemoryError, StartupError, UnsupportedModelError
from layerscale_core.host import inspect_host
from layerscale_core.memory_plan import SESSION_SLACK_PAGES
from layerscale_core.plugins import PluginRegistry
from layerscale_core.specs import Capabilities, KVType
from layerscale_server.cli import cli
from tests.support.license_authority import LicenseAuthority
from tests.support.llama_header import write_llama_header
from tests.support.tiny_folder import write_tiny_folder

GIB = 1 << 30


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, ["plan", *map(str, arguments)], catch_exceptions=False)


def plan_of(*arguments: str | Path) -> dict[str, Any]:
    result = run(*arguments, "--json")
    assert result.exit_code == 0
    plan: dict[str, Any] = json.loads(result.stdout)
    return plan


@pytest.fixture(scope="module")
def header_of_70b(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_llama_header(tmp_path_factory.mktemp("headers") / "llama-70b.gguf")


def test_a_header_without_data_is_enough(header_of_70b: Path) -> None:
    with pytest.raises(ModelFileError, match="truncated"):
        PluginRegistry.discover().open_model(header_of_70b)
    plan = plan_of("--model", header_of_70b, "--gpu-memory", "80GiB", "--context", "16384")
    assert (plan["parameters"], plan["layers"]) == (70_553_706_496, 80)
    assert plan["kv_bytes_per_token"] == 80 * 2 * 8 * 128 * 2
    assert 39.5e9 < plan["file_bytes"] < 40e9
    assert (plan["context"], plan["context_cap"]) == (16384, "wish")
    assert (plan["sessions"], plan["burst_slots"], plan["burst_slots_cap"]) == (1, 2, "tier")
    slack_tokens = SESSION_SLACK_PAGES * plan["page_size"]
    assert plan["kv_cache_bytes"] == (3 * 16384 + slack_tokens) * plan["kv_bytes_per_token"]
    spent = plan["weights_bytes"] + plan["workspace_bytes"] + plan["headroom_bytes"] + plan["kv_budget_bytes"]
    assert spent == plan["available_bytes"] == 80 * GIB


def test_weights_count_as_the_backend_holds_them(tiny_model_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ISA_VARIABLE, "numpy")
    plan = plan_of("--model", tiny_model_path)
    assert plan["weights_bytes"] == 4 * plan["parameters"]


@pytest.mark.parametrize(("kv_type", "element_bits"), [("fp16", 16), ("int8", 8.125), ("int4", 4.75)])
def test_a_smaller_kv_cache_is_planned_to_the_byte(header_of_70b: Path, kv_type: str, element_bits: float) -> None:
    arguments = ("--model", header_of_70b, "--gpu-memory", "80GiB", "--kv-cache-type", kv_type)
    plan = plan_of(*arguments)
    assert plan["kv_cache_type"] == kv_type
    assert plan["kv_bytes_per_token"] == 80 * 2 * 8 * 128 * element_bits / 8
    assert f"{kv_type}: {element_bits:g} bits an element" in run(*arguments).stdout


def test_a_kv_precision_that_the_backend_lacks_is_refused(
    tiny_model_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu_backend.CpuBackend, "capabilities", Capabilities(kv_types=(KVType.FP16, KVType.INT8)))
    with pytest.raises(StartupError, match=r"--kv-cache-type int4 .* cpu backend; choose one of fp16, int8"):
        run("--model", tiny_model_path, "--kv-cache-type", "int4")


@pytest.mark.skipif(native_isa() is None, reason="numpy holds every weight in float32")
def test_quantised_weights_are_planned_as_they_will_be(tmp_path: Path) -> None:
    folder = write_tiny_folder(tmp_path / "tiny")
    floats, int8, int4 = (
        plan_of("--model", folder, "--quantization", kind)["weights_bytes"] for kind in ("none", "int8", "int4")
    )
    assert 0.26 * floats < int8 < 0.29 * floats
    assert 0.7 * int8 < int4 < 0.9 * int8


def test_quantising_what_is_quantised_is_refused(header_of_70b: Path) -> None:
    with pytest.raises(UnsupportedModelError, match="--quantization int8: no weights of llama-70b are in floats"):
        run("--model", header_of_70b, "--quantization", "int8")


def test_people_get_a_table_with_reasons(tiny_model_path: Path) -> None:
    result = run("--model", tiny_model_path, "--sessions", "8", "--gpu-memory", "2GiB")
    rows = {line[:13].strip(): line for line in result.stdout.splitlines()}
    assert rows.keys() >= {"weights", "workspace", "KV budget", "context", "sessions", "burst pool", "burst slots"}
    assert "2.00 GiB" in rows["available"]
    assert "assumed" in rows["available"]
    assert "8 asked for; the limit of the free tier" in rows["sessions"]
    assert "what the model was trained on" in rows["context"]
    assert "note: --sessions 8 is more than the free tier's limit of 1, which holds instead" in result.stderr


def test_a_cut_context_says_so(header_of_70b: Path) -> None:
    result = run("--model", header_of_70b, "--gpu-memory", "48GiB")
    assert "cut from 131,072: the longest that memory holds" in result.stdout
    assert "note: a context of 131072 tokens does not fit in memory and is cut to" in result.stderr
    assert "note: sessions leave stateless requests" in result.stderr


def test_a_control_group_is_the_limit(tiny_model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    group = tmp_path / "sys/fs/cgroup"
    group.mkdir(parents=True)
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("0::/\n")
    (group / "memory.max").write_text(f"{96 << 20}\n")
    (group / "memory.current").write_text(f"{32 << 20}\n")
    monkeypatch.setattr(cpu_backend, "inspect_host", functools.partial(inspect_host, tmp_path))
    plan = plan_of("--model", tiny_model_path, "--backend", "cpu")
    assert plan["available_bytes"] == 64 << 20


def test_what_does_not_fit_is_one_line_with_numbers_and_remedies(header_of_70b: Path) -> None:
    with pytest.raises(OutOfMemoryError) as refusal:
        run("--model", header_of_70b, "--gpu-memory", "24GiB")
    line = str(refusal.value)
    assert "\n" not in line
    assert "of 24,576 MiB available memory the weights take" in line
    assert "MiB more memory or a smaller quantisation of the model would make it fit" in line


def test_the_memory_of_the_cpu_can_be_assumed_too(tiny_model_path: Path) -> None:
    flags = ("--model", tiny_model_path, "--backend", "cpu", "--cpu-memory")
    assert plan_of(*flags, "3GiB")["available_bytes"] == 3 * GIB
    assert plan_of(*flags, "3GiB", "--gpu-memory", "2GiB")["available_bytes"] == 2 * GIB


def test_wrong_flags_are_usage_errors(tiny_model_path: Path) -> None:
    assert "--model is missing" in run().output
    for size in ("much", "-1GiB", "1 parsec", ""):
        result = run("--model", tiny_model_path, "--gpu-memory", size)
        assert result.exit_code == 2
        assert "--gpu-memory must be a size such as 48GiB or 500MB" in result.output
        result = run("--model", tiny_model_path, "--cpu-memory", size)
        assert "--cpu-memory must be a size such as 48GiB or 500MB" in result.output
    with pytest.raises(StartupError, match="more than the 512 tokens"):
        run("--model", tiny_model_path, "--context", "1024")


def test_a_licence_key_counts(header_of_70b: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = LicenseAuthority(tmp_path)
    for name, value in authority.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("LAYERSCALE_LICENSE_KEY", authority.issue())
    plan = plan_of("--model", header_of_70b, "--gpu-memory", "100GB", "--context", "2048", "--sessions", "8")
    assert (plan["tier"], plan["sessions"], plan["sessions_cap"]) == ("pro", 8, "wish")
    assert (plan["burst_slots"], plan["burst_slots_cap"]) == (32, "tier")
