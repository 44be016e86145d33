"""What the registry accepts, what it records, and what plugins bring."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from layerscale_core.errors import LicenseError, ModelFileError, OutOfMemoryError, PluginError
from layerscale_core.plugins import Plugin, PluginRegistry
from layerscale_core.specs import KVLayout, hookimpl
from layerscale_core.version import SPEC_VERSION

LAYOUT = KVLayout(num_pages=4, page_size=16, num_layers=1, num_kv_heads=1, head_dim=8)


def plugin_with(spec_version: object = SPEC_VERSION, **hooks: object) -> ModuleType:
    """A plugin module whose hooks return the given values, or call the given functions."""
    module = ModuleType("a_plugin")
    module.LAYERSCALE_SPEC_VERSION = spec_version
    for name, value in hooks.items():
        setattr(module, f"layerscale_{name}", hookimpl(value if callable(value) else returning(value)))
    return module


def returning(value: object) -> Callable[[], object]:
    return lambda: value


def register(*plugins: object) -> tuple[PluginRegistry, list[Plugin]]:
    """A registry of plugins named p0, p1 …"""
    registry = PluginRegistry()
    return registry, [registry.register(plugin, f"p{index}", "test 1.0") for index, plugin in enumerate(plugins)]


def fail(*_arguments: object) -> None:
    raise RuntimeError("lost\nthe plot")


class TestDiscovery:
    def test_finds_the_built_in_plugins(self) -> None:
        found = {plugin.name: plugin for plugin in PluginRegistry.discover().plugins()}
        assert found["builtin"].distribution.startswith("layerscale-engine ")
        assert found["builtin"].spec_version == SPEC_VERSION
        assert "layerscale_make_kv_pool" in found["builtin"].hooks
        assert found["cpu"].hooks == ("layerscale_backends",)

    def test_a_plugin_that_cannot_be_imported_is_recorded_with_the_cause(self) -> None:
        registry = PluginRegistry()
        plugin = registry.load(EntryPoint("gone", "no_such_module_anywhere", "layerscale.plugins"))
        assert plugin.cause == "cannot be imported: ModuleNotFoundError: No module named 'no_such_module_anywhere'"
        assert registry.notices() == [f"plugin gone (no distribution) is broken and left out: {plugin.cause}"]

    def test_a_plugin_that_exits_when_it_is_imported_is_recorded(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "leaving_plugin.py").write_text("import sys; sys.exit('no GPU')")
        monkeypatch.syspath_prepend(tmp_path)
        plugin = PluginRegistry().load(EntryPoint("leaving", "leaving_plugin", "layerscale.plugins"))
        assert plugin.cause == "cannot be imported: SystemExit: no GPU"


class TestValidation:
    @pytest.mark.parametrize("spec_version", [SPEC_VERSION + 1, SPEC_VERSION - 2])
    def test_a_plugin_of_another_spec_version_is_left_out(self, spec_version: int) -> None:
        _, [plugin] = register(plugin_with(spec_version, backends=()))
        assert plugin.cause == (
            f"written for spec version {spec_version}; this build accepts {SPEC_VERSION} and {SPEC_VERSION - 1}"
        )

    @pytest.mark.parametrize("spec_version", [None, "1", 1.0, True])
    def test_a_plugin_without_a_spec_version_is_left_out(self, spec_version: object) -> None:
        _, [plugin] = register(plugin_with(spec_version, backends=()))
        assert plugin.cause == "declares no LAYERSCALE_SPEC_VERSION (an integer)"

    def test_the_version_before_works_with_a_notice(self) -> None:
        registry, [plugin] = register(plugin_with(SPEC_VERSION - 1, stream_types=[SimpleNamespace(name="mine")]))
        assert plugin.cause is None
        assert list(registry.stream_types()) == ["mine"]
        [notice] = registry.notices()
        assert notice.startswith(f"plugin p0 (test 1.0): written for spec version {SPEC_VERSION - 1}, which the next")

    def test_a_misspelt_hook_is_found_and_its_name_suggested(self) -> None:
        _, [plugin] = register(plugin_with(stream_typse=(), backends=()))
        assert plugin.cause == "unknown hook 'layerscale_stream_typse' (did you mean 'layerscale_stream_types'?)"

    def test_a_hook_unlike_any_other_is_unknown(self) -> None:
        _, [plugin] = register(plugin_with(zzz=()))
        assert plugin.cause == "unknown hook 'layerscale_zzz'"

    def test_a_hook_without_its_mark_is_found(self) -> None:
        forgotten = plugin_with()
        forgotten.layerscale_backends = lambda: ()
        _, [plugin] = register(forgotten)
        assert plugin.cause == "'layerscale_backends' is not marked with @hookimpl"

    def test_a_hook_that_asks_for_unknown_arguments_is_found(self) -> None:
        _, [plugin] = register(plugin_with(make_kv_pool=lambda layout, colour: None))
        assert "colour" in plugin.cause

    def test_a_plugin_that_brings_nothing_is_left_out(self) -> None:
        _, [plugin] = register(plugin_with())
        assert plugin.cause == "implements no hook"

    def test_the_same_plugin_twice_is_registered_once(self) -> None:
        registry = PluginRegistry()
        plugin = plugin_with(stream_types=[SimpleNamespace(name="mine")])
        first, second = (registry.register(plugin, "same", "test 1.0") for _ in range(2))
        assert first.cause is None
        assert second.cause is not None
        assert list(registry.stream_types()) == ["mine"]

    def test_a_broken_plugin_leaves_no_trace_in_the_others(self) -> None:
        broken = plugin_with(stream_types=[SimpleNamespace(name="broken")], stream_typse=())
        good = plugin_with(stream_types=[SimpleNamespace(name="good")])
        registry, _ = register(broken, good)
        assert list(registry.stream_types()) == ["good"]


class TestCollecting:
    def test_a_hook_is_called_once(self) -> None:
        calls = []
        registry, _ = register(plugin_with(model_formats=lambda: calls.append("called") or ()))
        registry.model_formats()
        registry.model_formats()
        assert calls == ["called"]

    def test_a_plugin_whose_hook_fails_is_recorded_and_left_out_from_then_on(self) -> None:
        registry, [failing, _] = register(
            plugin_with(stream_types=fail, model_formats=[SimpleNamespace(name="lost")]),
            plugin_with(stream_types=[SimpleNamespace(name="good")]),
        )
        assert list(registry.stream_types()) == ["good"]
        assert failing.cause == "layerscale_stream_types failed: RuntimeError: lost the plot"
        assert registry.model_formats() == []

    @pytest.mark.parametrize("answer", [5, [object()], [SimpleNamespace(name=None)], [SimpleNamespace(name="")]])
    def test_a_hook_that_returns_something_else_breaks_its_plugin(self, answer: object) -> None:
        registry, [plugin] = register(plugin_with(stream_types=answer))
        assert registry.stream_types() == {}
        assert plugin.cause.startswith("layerscale_stream_types failed: ")

    def test_none_is_nothing(self) -> None:
        registry, [plugin] = register(plugin_with(stream_types=lambda: None))
        assert registry.stream_types() == {}
        assert plugin.cause is None

    @pytest.mark.parametrize("hook", ["stream_types", "backends"])
    def test_two_of_one_name_are_an_error_that_names_both_plugins(self, hook: str) -> None:
        twins = [plugin_with(**{hook: [SimpleNamespace(name="twin")]}) for _ in range(2)]
        registry, _ = register(*twins)
        with pytest.raises(PluginError, match=r"named 'twin': p1 \(test 1.0\) and p0 \(test 1.0\)"):
            getattr(registry, hook)()


class TestChoosingOne:
    def test_the_last_registered_answers_first_and_none_passes(self) -> None:
        registry, _ = register(
            plugin_with(make_kv_pool=lambda layout: ("first", layout)),
            plugin_with(make_kv_pool=lambda layout: ("second", layout)),
            plugin_with(make_kv_pool=lambda: None),
        )
        assert registry.make_kv_pool(LAYOUT) == ("second", LAYOUT)

    def test_a_built_in_answers_last_whenever_it_is_registered(self) -> None:
        default = plugin_with()
        default.layerscale_make_scheduler_policy = hookimpl(trylast=True)(returning("default"))
        registry, _ = register(plugin_with(make_scheduler_policy="mine"), default)
        assert registry.make_scheduler_policy() == "mine"

    def test_who_serves_is_logged(self, caplog: pytest.LogCaptureFixture) -> None:
        registry, _ = register(plugin_with(make_offload_planner="planner"))
        with caplog.at_level(logging.INFO, "layerscale_core.plugins"):
            registry.make_offload_planner()
        assert caplog.messages == ["layerscale_make_offload_planner is served by plugin p0 (test 1.0)"]

    def test_a_hook_that_fails_is_an_error_and_not_passed_over(self) -> None:
        registry, _ = register(plugin_with(make_scheduler_policy="default"), plugin_with(make_scheduler_policy=fail))
        with pytest.raises(PluginError, match=r"plugin p1 \(test 1.0\) is broken: .* RuntimeError: lost the plot"):
            registry.make_scheduler_policy()

    def test_an_error_of_ours_passes_through(self) -> None:
        def refuse(layout: KVLayout) -> None:
            raise OutOfMemoryError(f"{layout.num_pages} pages do not fit")

        registry, _ = register(plugin_with(make_kv_pool=refuse))
        with pytest.raises(OutOfMemoryError, match="4 pages do not fit"):
            registry.make_kv_pool(LAYOUT)

    def test_nobody_to_ask_is_an_error(self) -> None:
        with pytest.raises(PluginError, match="no plugin serves layerscale_make_kv_pool"):
            PluginRegistry().make_kv_pool(LAYOUT)


class TestBuiltIn:
    """The defaults, through the same door."""

    @pytest.fixture
    def registry(self) -> PluginRegistry:
        return PluginRegistry.discover()

    def test_brings_a_kv_pool_of_the_planned_size(self, registry: PluginRegistry) -> None:
        pool = registry.make_kv_pool(LAYOUT)
        assert (pool.page_size, pool.stats().total_pages) == (16, 4)

    def test_brings_a_scheduler_policy_and_an_offload_planner(self, registry: PluginRegistry) -> None:
        assert type(registry.make_scheduler_policy()).__name__ == "FairPolicy"
        assert registry.make_offload_planner().plan([10, 10], 5).host_layers == (0,)

    def test_brings_market_bars(self, registry: PluginRegistry) -> None:
        assert "ohlcv" in registry.stream_types()

    def test_reads_signed_licence_keys(self, registry: PluginRegistry) -> None:
        assert [type(verifier).__name__ for verifier in registry.license_verifiers()] == ["SignedKeyVerifier"]

    def test_opens_gguf(self, registry: PluginRegistry, tiny_model_path: Path) -> None:
        model = registry.open_model(tiny_model_path)
        assert model.spec.architecture == "llama"
        model.close()

    def test_a_file_of_no_known_format_is_refused_with_the_known_ones(
        self, registry: PluginRegistry, tmp_path: Path
    ) -> None:
        path = tmp_path / "model.bin"
        path.write_bytes(b"something else")
        with pytest.raises(ModelFileError, match=r"not a model of a known format \(.*gguf.*\)"):
            registry.open_model(path)

    def test_what_cannot_be_read_is_not_said_to_be_of_another_format(
        self, registry: PluginRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(ModelFileError, match="not a regular file"):
            registry.open_model(tmp_path / "pipe")

        def forbid(path: Path) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(os, "scandir", forbid)
        with pytest.raises(ModelFileError, match="permission denied"):
            registry.open_model(tmp_path)


def test_a_plugin_that_cannot_be_hashed_is_broken_and_harms_no_other() -> None:
    @dataclass
    class Unhashable:
        LAYERSCALE_SPEC_VERSION = SPEC_VERSION

        @hookimpl
        def layerscale_stream_types(self) -> Sequence[object]:
            return ()

    registry, (good, bad) = register(plugin_with(license_verifiers=["verifier"]), Unhashable())
    assert "unhashable" in (bad.cause or "")
    assert registry.license_verifiers() == ["verifier"]
    assert good.cause is None


def test_license_verifiers_of_all_plugins_are_brought_together() -> None:
    class Verifier:
        def verify(self, key: str) -> None:
            raise LicenseError("expired")

    registry, _ = register(plugin_with(license_verifiers=[Verifier()]), plugin_with(license_verifiers=[Verifier()]))
    assert len(registry.license_verifiers()) == 2
