"""What exists is documented, and nothing else is."""

from __future__ import annotations

import inspect
import re
from types import FunctionType

import click
import pytest

from layerscale_core.specs import hooks
from layerscale_server.cli import cli
from layerscale_server.settings import LIMIT_ROWS, SETTING_ROWS
from tests.support.documentation import ROOT, inline_code, read

HOOKS = [value for name, value in vars(hooks).items() if name.startswith("layerscale_")]
PACKAGES = ["layerscale_core", "layerscale_backend_cpu", "layerscale_server"]

_PACKAGE_HEADING = re.compile(r"^### `(layerscale_[a-z_/]+)/`$", re.MULTILINE)
_MODULE_ROW = re.compile(r"^\| `([a-z_]+\.(?:py|cpp|h))` \| .{10,}\|$", re.MULTILINE)


def test_every_flag_of_the_command_line_is_in_the_configuration_page() -> None:
    page = read("docs/configuration.md")
    assert "{{ setting_table }}" in page
    assert "{{ limit_table }}" in page
    in_table = {row.flag for row in SETTING_ROWS}
    visible = {
        option.opts[-1]
        for option in cli.get_params(click.Context(cli))
        if isinstance(option, click.Option) and not option.hidden
    }
    assert visible - in_table - {code.split(" ")[0] for code in inline_code(page)} == set()


def test_flags_without_effect_today_are_named_as_such() -> None:
    sentence = re.search(r"Some flags parse and validate today[^.]+\.", read("docs/configuration.md"))
    assert sentence is not None
    assert set(inline_code(sentence[0])) == {row.flag for row in SETTING_ROWS if row.since_later}


@pytest.mark.parametrize("row", [*SETTING_ROWS, *LIMIT_ROWS], ids=lambda row: str(row.name))
def test_the_help_of_a_setting_fits_a_table(row: object) -> None:
    help_text = getattr(row, "help", "")
    assert help_text
    assert "|" not in help_text


@pytest.mark.parametrize("hook", HOOKS, ids=lambda hook: str(hook.__name__))
def test_a_hook_says_when_it_is_called_and_since_when_and_is_in_the_guide(hook: FunctionType) -> None:
    contract = inspect.getdoc(hook) or ""
    assert contract.startswith("Called ")
    assert re.search(r"Since\s+spec version \d", contract)
    assert hook.__name__ in inline_code(read("docs/plugins.md"))


def test_every_module_has_a_line_in_the_architecture_page_and_every_line_a_module() -> None:
    page = read("docs/architecture.md")
    described = set()
    sections = _PACKAGE_HEADING.split(page)
    for folder, section in zip(sections[1::2], sections[2::2], strict=True):
        described |= {f"{folder}/{name}" for name in _MODULE_ROW.findall(section)}
    existing = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.suffix in {".py", ".cpp", ".h"} and path.name not in {"__init__.py", "__main__.py"}
    }
    assert sorted(existing - described) == []
    assert sorted(described - existing) == []
