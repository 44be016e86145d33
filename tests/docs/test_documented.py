"""What exists is documented, and nothing else is."""

from __future__ import annotations

import inspect
import re
from types import FunctionType

import click
import pytest

from docs.module_lines import module_lines, page_with
from layerscale_core.specs import hooks
from layerscale_server.cli import cli
from layerscale_server.settings import LIMIT_ROWS, SETTING_ROWS
from tests.support.documentation import ROOT, inline_code, read

HOOKS = [value for name, value in vars(hooks).items() if name.startswith("layerscale_")]


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


def test_the_architecture_page_has_the_line_of_every_module() -> None:
    lines = module_lines()
    assert all(line.endswith(". |") for line in lines.splitlines() if line.startswith("| `")), lines
    assert page_with(lines) == read("docs/architecture.md"), "python docs/module_lines.py brings the page up to date"


def test_every_file_that_the_architecture_page_names_exists() -> None:
    prose = read("docs/architecture.md").partition("## Modules")[0]
    for name in inline_code(prose):
        if name.endswith((".py", "/")):
            assert (
                any(path.as_posix().endswith("/" + name.rstrip("/")) for path in ROOT.glob("layerscale_*/**/*"))
                or (ROOT / name).exists()
            ), name
