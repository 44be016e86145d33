"""``layerscale plugins`` and ``layerscale doctor``."""

from __future__ import annotations

import json
from types import ModuleType

import pytest
from click.testing import CliRunner, Result

from layerscale_core.plugins import PluginRegistry
from layerscale_core.specs import Capabilities, Probe, hookimpl
from layerscale_core.version import SPEC_VERSION, __version__
from layerscale_server.cli import cli


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments, catch_exceptions=False)


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Adds plugins to those that are found: a broken one, and one whose backend would win but cannot load."""
    discover = PluginRegistry.discover

    class BrittleBackend:
        name = "brittle"
        capabilities = Capabilities()

        def probe(self) -> Probe:
            return Probe(100, "a device [bold]was found[/bold]")

        def load(self, options: object) -> None:
            raise RuntimeError("the driver\x1b[31m is gone")

    def discover_more() -> PluginRegistry:
        registry = discover()
        registry.register(ModuleType("broken"), "broken", "broken-dist 0.9")
        module = ModuleType("brittle")
        module.LAYERSCALE_SPEC_VERSION = SPEC_VERSION - 1
        module.layerscale_backends = hookimpl(lambda: [BrittleBackend()])
        registry.register(module, "brittle", "brittle-dist 2.0")
        return registry

    monkeypatch.setattr(PluginRegistry, "discover", discover_more)


class TestPlugins:
    def test_lists_names_versions_and_hooks(self) -> None:
        result = run("plugins", "--json")
        assert result.exit_code == 0
        listing = json.loads(result.stdout)
        plugins = {plugin["name"]: plugin for plugin in listing["plugins"]}
        assert listing["spec_version"] == SPEC_VERSION
        assert plugins["cpu"] == {
            "name": "cpu",
            "distribution": f"layerscale-engine {__version__}",
            "spec_version": SPEC_VERSION,
            "hooks": ["layerscale_backends"],
            "cause": None,
            "notice": None,
        }
        assert "layerscale_make_scheduler_policy" in plugins["builtin"]["hooks"]

    def test_shows_the_cause_of_a_broken_plugin_and_the_notice_of_an_old_one(self, install: None) -> None:
        words = " ".join(run("plugins").stdout.replace("│", " ").split())
        assert "broken: declares no" in words
        plugins = {plugin["name"]: plugin for plugin in json.loads(run("plugins", "--json").stdout)["plugins"]}
        assert plugins["broken"]["cause"] == "declares no LAYERSCALE_SPEC_VERSION (an integer)"
        assert f"spec version {SPEC_VERSION - 1}" in plugins["brittle"]["notice"]

    def test_a_table_is_for_people(self) -> None:
        lines = run("plugins").stdout.splitlines()
        assert lines[0].strip() == f"Plugins (spec version {SPEC_VERSION})"
        assert any("builtin" in line and "layerscale-engine" in line for line in lines)


class TestDoctor:
    def test_describes_the_machine_and_the_choice(self) -> None:
        result = run("doctor", "--json")
        assert result.exit_code == 0
        diagnosis = json.loads(result.stdout)
        assert diagnosis["layerscale_version"] == __version__
        assert diagnosis["host"]["total_memory_bytes"] > 0
        assert diagnosis["problem"] is None
        [chosen] = [verdict for verdict in diagnosis["backends"] if verdict["is_chosen"]]
        assert (chosen["name"], chosen["plugin"]) == ("cpu", f"cpu (layerscale-engine {__version__})")
        assert chosen["reason"].startswith("scores 10: ")
        assert [device["name"] for device in diagnosis["devices"]] == ["cpu"]

    def test_prints_the_same_for_people(self) -> None:
        result = run("doctor")
        assert result.exit_code == 0
        for heading in ("Machine", "Plugins", "Backends", "Devices"):
            assert heading in result.stdout

    def test_notices_of_the_device_are_shown(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("LAYERSCALE_CPU_ISA", "numpy")
        [notice] = json.loads(run("doctor", "--json").stdout)["notices"]
        assert "LAYERSCALE_CPU_ISA=numpy" in notice
        assert "notice: LAYERSCALE_CPU_ISA=numpy" in run("doctor").stdout

    def test_a_backend_that_cannot_load_is_a_problem_and_not_passed_over(self, install: None) -> None:
        result = run("doctor", "--json")
        assert result.exit_code == 1
        diagnosis = json.loads(result.stdout)
        assert diagnosis["problem"] == (
            "backend 'brittle' of plugin brittle (brittle-dist 2.0) cannot load: "
            "RuntimeError: the driver\x1b[31m is gone"
        )
        assert diagnosis["devices"] == []
        reasons = {verdict["name"]: verdict["reason"] for verdict in diagnosis["backends"]}
        assert reasons["cpu"].startswith("scores 10: ")

    def test_texts_of_plugins_are_neither_markup_nor_control(self, install: None) -> None:
        output = run("doctor").stdout
        assert "[bold]was" in output
        assert "\x1b[31m" not in output
        assert "\\x1b[31m" in output

    def test_a_named_backend_is_looked_at_instead(self, install: None) -> None:
        result = run("doctor", "--backend", "cpu", "--json")
        assert result.exit_code == 0
        reasons = {verdict["name"]: verdict["reason"] for verdict in json.loads(result.stdout)["backends"]}
        assert reasons["brittle"] == "'cpu' was asked for"

    def test_an_unknown_backend_is_a_problem_with_the_choices(self) -> None:
        result = run("doctor", "--backend", "abacus")
        assert result.exit_code == 1
        assert "problem: no backend named 'abacus'; there are: cpu" in result.stdout
