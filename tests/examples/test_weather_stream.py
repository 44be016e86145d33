"""A third party's stream type, installed beside LayerScale: found through its entry point, beside the built-in ones."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from layerscale_core.plugins import PluginRegistry


def run_python(site: Path, *arguments: str, cwd: Path | None = None) -> str:
    """The output of Python in a process that has the plugin installed."""
    path = os.pathsep.join(filter(None, [str(site), os.environ.get("PYTHONPATH")]))
    environment = os.environ | {"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
    result = subprocess.run(
        [sys.executable, *arguments], check=False, capture_output=True, text=True, env=environment, cwd=cwd, timeout=120
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_it_joins_the_built_in_stream_types(weather_stream_site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = set(PluginRegistry.discover().stream_types())
    monkeypatch.syspath_prepend(weather_stream_site)
    stream_types = PluginRegistry.discover().stream_types()
    assert set(stream_types) == before | {"weather"}
    entry = {"station": "Lisbon", "temp": 14, "wind": 12, "rain": 0, "timestamp": 1704205800, "sky": "clear"}
    weather = stream_types["weather"]
    assert weather.render(weather.validate(entry)) == "Jan 2 14:30 Lisbon 14 C wind 12 rain 0"


def test_layerscale_plugins_lists_it(weather_stream_site: Path) -> None:
    output = run_python(weather_stream_site, "-m", "layerscale_server", "plugins", "--json")
    plugins = {plugin["name"]: plugin for plugin in json.loads(output)["plugins"]}
    assert plugins["weather-stream"]["distribution"] == "layerscale-weather-stream 0.1.0"
    assert plugins["weather-stream"]["hooks"] == ["layerscale_stream_types"]
    assert plugins["weather-stream"]["cause"] is None


def test_it_passes_its_own_tests(weather_stream_site: Path, weather_stream_source: Path) -> None:
    output = run_python(
        weather_stream_site, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests", cwd=weather_stream_source
    )
    assert " passed" in output
